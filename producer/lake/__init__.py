"""Read Delta and Iceberg tables at a fixed version, and detect all kinds of lake tables."""
