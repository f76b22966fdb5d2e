"""Read the rows of input files, in one file for each format, and of lists."""
