"""Scores (query, document) pairs with a cross-encoder; knows torch, transformers, tokenizers, numpy only."""
