"""The FUSE side of a mount: the kernel's requests, answered from the tree."""
