"""Score one shard: from the rows of its input to its published part."""
