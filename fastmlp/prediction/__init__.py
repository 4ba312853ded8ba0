"""Models that predict words, networks and counts, and their uses: perplexity, generated text, similar words."""
