"""The kernels in C: their sources, their build and their loading."""
