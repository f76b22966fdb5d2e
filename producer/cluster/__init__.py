"""A cluster at hand: start one here, watch one, show one."""
