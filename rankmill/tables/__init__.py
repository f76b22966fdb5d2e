"""Rows and columns: Parquet files, types, ids, texts and sizes."""
