"""Score (query, document) pairs; docs/architecture.md lists the packages that this room imports."""
