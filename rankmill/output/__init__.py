"""Where a job writes: parts under OUTPUT, control files next to it."""
