"""Conformance kit: plays the contracts of the protocol against any implementation of it.

`impala-conformance --policy-server ADDR`, `--learner ADDR` and `--client -- COMMAND {address}`
print a table of rules. Needs the generated code, grpcio, numpy, rich, and xxhash for a learner's
digests; nothing else of the project.
"""
