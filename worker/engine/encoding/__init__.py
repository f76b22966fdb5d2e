"""Encoders from pairs of texts to token ids."""
