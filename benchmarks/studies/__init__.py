"""Measurements that take longer than a benchmark: one command each."""
