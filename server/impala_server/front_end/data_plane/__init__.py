"""What actors call: registration, unrolls, weights."""
