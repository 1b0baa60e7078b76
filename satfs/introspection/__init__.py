"""What a mount reports about itself: `.satfs/`, reachable by name and never listed."""
