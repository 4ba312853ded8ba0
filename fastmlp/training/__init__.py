"""A run: the loop and its parts."""
