"""Audits: from sheets that are labelled by eye to verdicts on target rates."""
