"""The seed's class IMPALA over the real server and actors: `from impala_server import IMPALA`.

The layer above impala_server and impala_actor, which do not import it, except lazily in
`impala_server/__init__.py`. This file imports nothing, as actors unpack objects of this package.
"""
