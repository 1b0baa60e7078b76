"""The control socket of a mount, and the commands it carries out."""
