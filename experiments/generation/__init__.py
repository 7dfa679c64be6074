"""Assets from words: guides that know what a prompt looks like, routes from a guide to a mesh, and what is written."""
