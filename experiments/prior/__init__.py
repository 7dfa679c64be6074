"""The embedded multi-view prior: its training, its evaluation, its weights."""
