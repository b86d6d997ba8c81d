"""Figures and galleries for `snakemake --report`."""
