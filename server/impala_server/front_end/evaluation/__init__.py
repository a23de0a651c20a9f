"""What evaluators call."""
