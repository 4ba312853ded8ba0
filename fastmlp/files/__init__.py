"""Files of a run: how they are written, what they are called, whose they are."""
