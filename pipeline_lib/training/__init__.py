"""One training loop, and the tasks that run on it: GAN, encoder, detector, segmenter."""
