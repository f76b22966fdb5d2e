"""A model's facts on this machine: its path, its speed, and whether its scores are right."""
