"""The learner process: batches in, updates, weights out. No gRPC."""
