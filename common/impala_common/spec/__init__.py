"""Specifications of environments, actions, networks and unrolls: shapes, dtypes, bounds."""
