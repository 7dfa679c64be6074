"""Models over several views of one object at once."""
