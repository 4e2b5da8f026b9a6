"""NVIDIA's reference integrity manifests (RIM): SWID tags under an enveloped XML signature, and what they appraise."""
