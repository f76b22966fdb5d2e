"""Check what a worker takes from Redis before use: messages of its tasks, and remote control."""
