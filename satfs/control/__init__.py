"""The control socket of a mount, and what commands ask of it."""
