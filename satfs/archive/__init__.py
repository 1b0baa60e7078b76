"""Zip archives on a remote object: which members there are, and any range of one of them."""
