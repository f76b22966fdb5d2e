"""A model's folder: its settings, its weights, and refusals of what cannot be scored."""
