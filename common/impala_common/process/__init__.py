"""Shared parts of processes: logs, exit codes, devices, failpoints."""
