"""`python -m pipeline_lib`: the stages without Snakemake."""

import sys

from pipeline_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
