"""Editing of images, from parts and collages to composites."""

import pipeline_lib.config  # noqa: F401  first, since it imports the editors itself
