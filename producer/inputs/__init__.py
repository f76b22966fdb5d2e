"""What an input names: plain files, a lake table, or something that is refused."""
