"""Image shards, Parquet tables and the readers that fill them."""

import pipeline_lib.config  # noqa: F401  first, since it imports the readers itself
