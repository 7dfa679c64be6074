"""Views of an object to its surface in one pass of a network: its data, training, weights and use."""
