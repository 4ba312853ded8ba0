"""Programs to read, runnable with python -m."""
