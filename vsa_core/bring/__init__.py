"""Bring your own predictions: a table of what anybody's models say in, a table of labels out."""
