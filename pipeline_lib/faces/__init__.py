"""Where faces are in a photograph: a face detector, 468 landmarks, and what is made of these."""
