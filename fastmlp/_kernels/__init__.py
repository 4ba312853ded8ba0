"""Where the compiled modules land; only fastmlp.ops imports them."""
