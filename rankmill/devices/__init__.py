"""Which devices this machine has, and which of them was asked for."""
