"""Scores (query, document) pairs; needs torch, transformers, tokenizers and numpy only."""
