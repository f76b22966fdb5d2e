"""The state in Redis: jobs' counts and states, and the claims of workers."""
