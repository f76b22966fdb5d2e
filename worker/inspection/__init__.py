"""What a model is like on this machine: its path, its speed, and whether its scores are right."""
