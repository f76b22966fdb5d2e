"""Prepare any input as pairs in Parquet, grouped by query, once and out of core."""
