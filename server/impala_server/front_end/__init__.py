"""The process that speaks gRPC: authenticates, validates, writes into rollout storage."""
