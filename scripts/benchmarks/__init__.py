"""Measures satfs against what a user would run instead, on one origin, in one interleaved run."""
