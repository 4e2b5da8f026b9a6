"""NVIDIA GPU evidence: signed SPDM measurements of Hopper and Blackwell GPUs in confidential computing."""
