"""Models before a job uses them: what the store holds, a check, and a comparison."""
