"""What is made of a trained network: perplexities, texts, similar words."""
