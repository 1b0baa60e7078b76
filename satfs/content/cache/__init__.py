"""The disk cache: blocks of objects, their index, eviction."""
