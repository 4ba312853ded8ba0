"""fastmlp: train a neural language model of Bengio et al. (2003) on novels, fast, on an ordinary CPU."""

__version__ = "0.1.0"
