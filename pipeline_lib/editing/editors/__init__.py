"""The editors that a config can name, one a module."""
