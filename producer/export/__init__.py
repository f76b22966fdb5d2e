"""Write a finished job's result in other forms: lines for tools, and training data."""
