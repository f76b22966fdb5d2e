"""The calls of Python: rerank a table here, start and follow jobs, measure them."""
