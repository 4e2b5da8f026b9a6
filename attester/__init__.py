"""The node's side: evidence collection, broker client, leases, and the SDK that opens sealed files."""
