"""The door: the kernel's questions, answered from the tree."""
