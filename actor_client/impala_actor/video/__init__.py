"""Films episodes."""
