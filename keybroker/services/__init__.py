"""gRPC adapters: they translate and decide nothing."""
