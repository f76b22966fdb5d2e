"""Turns inputs that are not pairs clustered by query into the canonical pairs dataset, once."""
