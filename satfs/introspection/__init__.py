"""A mount's reports about itself: `.satfs/`, reachable by name and never listed."""
