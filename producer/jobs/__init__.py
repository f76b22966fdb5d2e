"""Submit, plan, follow and control jobs."""
