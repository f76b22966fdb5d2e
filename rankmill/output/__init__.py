"""A job's output: parts in OUTPUT, control files next to it."""
