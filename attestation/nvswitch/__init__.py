"""NVIDIA NVSwitch evidence: signed SPDM measurements of LS10 switches in a confidential-computing fabric."""
