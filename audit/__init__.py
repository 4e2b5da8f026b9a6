"""Transparency log: typed records, salted leaf envelopes, RFC 9162 hashing, C2SP checkpoints, proofs, queries."""
