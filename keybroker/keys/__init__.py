"""The broker's keys: the root, what is wrapped under it, what signs, and the epoch keys behind its nonces."""
