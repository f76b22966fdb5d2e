"""Files of a model that a load refuses, converted to files that it takes."""
