"""The actor client: environments, policy, unroll transport, evaluation."""
