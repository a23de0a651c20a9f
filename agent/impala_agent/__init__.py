"""The seed's class IMPALA over the real server and actors: `from impala_rl import IMPALA`.

The layer above impala_server and impala_actor. Of those two only
`impala_server/__init__.py` imports it, when somebody asks for the class there.
Imports nothing by itself, as actors make objects of it.
"""
