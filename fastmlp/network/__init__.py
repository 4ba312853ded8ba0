"""The network that the trainer trains, composed of the layers of fastmlp.nn."""
