"""Show that a worker is alive: heartbeats, their files, and device failures."""
