"""The vendor's API: the questions, the credential, and what the answers mean."""
