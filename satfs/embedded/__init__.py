"""The tree inside the process of a program, without a mount and without FUSE."""
