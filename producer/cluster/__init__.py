"""A cluster: start a private one, supervise workers, export metrics, show Flower."""
