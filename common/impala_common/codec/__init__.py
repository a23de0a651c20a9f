"""Python values to protocol messages and back: always a `pack_*`/`unpack_*` pair."""
