"""AMD SEV-SNP: the attestation report (`abi`), who signed it (`endorsements`), and what it must say (`verify`)."""
