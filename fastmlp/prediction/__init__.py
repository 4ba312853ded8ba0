"""Uses of a trained network: perplexity, generated text, similar words."""
