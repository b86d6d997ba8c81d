"""Evaluation of bias, image quality and edits."""
