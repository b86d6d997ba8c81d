"""Masks, parts, collages and their inversion: how one image is given a part of another."""
