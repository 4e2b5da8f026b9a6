"""RATS Verifier: bytes in, claims and findings out. No network, no clock, no database."""
