"""The files that images come from, and how an edit goes back into one of them."""
