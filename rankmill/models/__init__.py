"""What a model is called, where it lies, and whether its files can be trusted."""
