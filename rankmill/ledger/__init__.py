"""What Redis knows: jobs' counts and states, and who may run what."""
