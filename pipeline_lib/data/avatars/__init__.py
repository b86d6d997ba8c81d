"""The embedded cartoon faces: what they are, how they are drawn, and the truth of images of them."""
