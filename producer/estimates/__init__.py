"""What a job would cost, from a sample, without writing anything."""
