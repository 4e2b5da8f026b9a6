"""Signed SPDM measurements (DMTF DSP0274), and the DICE and NVIDIA structures that travel with them."""
