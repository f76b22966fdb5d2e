"""What is wrong with this machine's set-up, and the mend."""
