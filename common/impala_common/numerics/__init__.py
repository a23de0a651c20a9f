"""Mathematics on tensors: V-trace, losses, distributions. Knows no gRPC."""
