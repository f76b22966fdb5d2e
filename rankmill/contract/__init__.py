"""What is written down and sent: every message, file and result, as frozen models."""
