"""Move one range of a presigned URL into the cache: in the loop, or in worker processes."""
