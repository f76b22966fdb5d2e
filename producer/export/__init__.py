"""Write a finished job's result in other formats: lines for tools, and training data."""
