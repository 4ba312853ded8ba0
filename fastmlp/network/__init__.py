"""The network that the trainer trains, composed of the ops."""
