"""The estimate of a job's cost from a sample; it writes nothing."""
