"""The seed's class IMPALA over the real server and actors: `from impala_server import IMPALA`.

The layer above impala_server and impala_actor; nothing of those two imports it
but the one door in `impala_server/__init__.py`. Imports nothing by itself, as
actors make objects of it.
"""
