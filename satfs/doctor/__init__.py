"""Checks of a machine, a network and an account, for whatever would keep satfs from working."""
