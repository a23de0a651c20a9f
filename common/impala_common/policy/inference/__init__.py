"""Ways to run the policy's network in an actor, and the choice between them.

`backend` says what a way is; `selection` measures those that fit and takes the fastest.
"""
