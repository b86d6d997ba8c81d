"""Measurements reported in the documentation; none is a test."""
