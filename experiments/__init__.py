"""Scripts that establish a result of the documentation; README.md says which."""
