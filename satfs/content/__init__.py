"""Bytes [start, stop) of remote objects, from cache or wire, each fetched once."""
