"""Distinct pairs as ragged arrays, and the token batches made of them."""
