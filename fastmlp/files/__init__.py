"""The files of a run: their names, their format, and safe writing."""
