"""The submitting side: plan, submit, follow, the command line. No torch."""
