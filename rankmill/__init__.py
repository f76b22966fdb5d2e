"""The contract that the submitting and the scoring side share."""
