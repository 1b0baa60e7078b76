"""Checks of a machine, a network and an account, for any obstacle to satfs."""
