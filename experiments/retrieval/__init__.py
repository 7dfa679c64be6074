"""The two-tower model that says whether pictures of an object fit a caption: training and retrieval scores."""
