"""The policy server: an actor whose environment slots are remote."""
