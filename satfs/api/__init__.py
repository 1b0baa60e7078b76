"""The vendor's API: the requests, the credential, and what the responses mean."""
