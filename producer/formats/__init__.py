"""Read the rows of one file format each: Parquet, JSONL, TREC runs, lists."""
