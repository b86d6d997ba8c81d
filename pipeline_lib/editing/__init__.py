"""Editing of images, from parts and collages to composites."""
