"""The scoring side: a shard from rows to part."""
