"""Read Delta and Iceberg tables through their logs, at a fixed version."""
