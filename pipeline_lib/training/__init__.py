"""The training loop and its tasks: GAN, encoder, detector and segmenter."""
