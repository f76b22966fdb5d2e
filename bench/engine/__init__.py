"""The benchmark of the engine: its sides, their models and files, the comparison and its report."""
