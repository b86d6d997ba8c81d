"""Bias with intervals, image quality with named extractors, and the distances of single edits."""
