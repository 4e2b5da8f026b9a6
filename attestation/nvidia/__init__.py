"""What NVIDIA's GPUs and NVSwitches share: the shape of their certificates, and how measurements are appraised."""
