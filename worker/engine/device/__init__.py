"""Batches on the device: runs, memory and faults."""
