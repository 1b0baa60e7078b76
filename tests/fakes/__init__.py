"""Small working things in the place of large ones."""
