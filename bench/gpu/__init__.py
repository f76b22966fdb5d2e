"""The benchmark on one CUDA device: calls of three minutes, each of whose rows is kept at once."""
