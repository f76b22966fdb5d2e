"""The kinds of an input: plain files, a lake table, or something that is refused."""
