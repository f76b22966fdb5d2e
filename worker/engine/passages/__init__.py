"""Cut documents into passages, and score a document by its passages."""
