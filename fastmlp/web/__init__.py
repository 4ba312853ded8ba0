"""The page to play with a model: its files, and the server that answers it; `python -m fastmlp.play` starts it."""
