"""Model families: the forwards that the engine has, and the loader that picks one."""
