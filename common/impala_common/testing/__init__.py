"""Shared tools for tests: tiny environments and fakes, shipped so that others can test too."""
