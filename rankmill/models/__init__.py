"""Models by name: permission, local folder, and checks of the files before a load."""
