"""Count what a worker does and serve it to Prometheus."""
