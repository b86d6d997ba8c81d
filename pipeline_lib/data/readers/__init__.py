"""The readers of datasets that a config can name, one a module."""
