"""Which ranges are fetched, when, and over how many connections."""
