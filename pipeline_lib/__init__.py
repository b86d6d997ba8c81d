"""Latent Rebalance: rebalance an image dataset, and the generative model trained on it, by latent regression."""

__version__ = "0.1.0"
