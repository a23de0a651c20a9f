"""Looks at runs: impala-report writes a page about some, impala-runs lists those of a folder."""
