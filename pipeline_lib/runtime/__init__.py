"""Errors, files, seeding, devices and progress, shared by all stages."""
