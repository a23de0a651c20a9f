"""What administrators call."""
