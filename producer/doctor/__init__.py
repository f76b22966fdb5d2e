"""Check this machine's setup and suggest fixes: `rankmill doctor`."""
