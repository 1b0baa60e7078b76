"""Zip archives in a remote object: their members, and any range of one member."""
