"""The sealed-file format for weights, datasets and checkpoints: Tink's streaming AEAD and a signed manifest."""
