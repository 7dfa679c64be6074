"""Measures of generated assets and views, and the program that puts them into a table."""
