"""Scores (query, document) pairs; knows torch, transformers, tokenizers and numpy only."""
