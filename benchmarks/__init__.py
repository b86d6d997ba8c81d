"""Measurements behind the figures in the documents; none is a test."""
