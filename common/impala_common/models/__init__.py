"""Networks: a contract, the shipped architectures, and the registry that makes them.

Importing this package does not import torch; import `impala_common.models.contract` or
`impala_common.models.registry`.
"""
