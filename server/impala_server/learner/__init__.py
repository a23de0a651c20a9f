"""The learner process: batches in, optimizer steps, weights out. No gRPC."""
