"""Inference backends, which run the policy's network in an actor, and the choice between them.

`backend` has the interface; `selection` measures the suitable backends and takes the fastest.
"""
