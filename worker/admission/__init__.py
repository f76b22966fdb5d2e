"""What a worker takes from Redis: its own tasks and a few questions, checked before use."""
