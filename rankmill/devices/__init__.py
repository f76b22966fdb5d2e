"""The devices of this machine: asked of the driver, then chosen."""
