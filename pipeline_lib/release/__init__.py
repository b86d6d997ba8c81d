"""What is published of a run: the image sets in common formats, their cards, and what made them."""
