"""The network: addresses, connections, retries, and which hosts are known to be away."""
