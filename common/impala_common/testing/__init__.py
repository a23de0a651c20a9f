"""Shared tools for tests: small environments and checks, shipped for tests of user code."""
