"""Image shards, Parquet tables and the readers that fill them."""
