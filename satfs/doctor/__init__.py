"""Look at a machine, a network and an account, and say what would keep satfs from working."""
