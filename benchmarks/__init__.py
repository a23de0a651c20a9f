"""Measurements kept in docs/results: `make bench`, or one file at a time."""
