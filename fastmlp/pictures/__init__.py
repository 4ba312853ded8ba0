"""The loss over the steps, and words in two dimensions."""
