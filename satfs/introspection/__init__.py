"""What a mount says about itself: `.satfs/`, reachable by name in the mount, and listed nowhere."""
