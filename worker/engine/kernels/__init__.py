"""The arithmetic of a forward: attention, linear layers, heads, precisions."""
