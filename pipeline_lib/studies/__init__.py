"""The paper's studies of composition, each a Snakemake target of its own over a run's generator and encoder."""
