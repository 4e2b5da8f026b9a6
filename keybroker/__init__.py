"""RATS Relying Party: grants, leases, jobs, assets, sites, keys and the storage beneath them."""
