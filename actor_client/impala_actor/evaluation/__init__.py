"""Plays episodes with frozen weights, and plots runs."""
