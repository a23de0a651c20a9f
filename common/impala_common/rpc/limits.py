"""Sizes and durations that both ends of the wire share."""

from __future__ import annotations

PROTOCOL_VERSION = 1
"""Version of `impala_rl.v1` this code speaks."""

OLDEST_PROTOCOL_VERSION = 1
"""Oldest version a learner of this release still takes; raised when a release drops one."""

MAX_MESSAGE_BYTES = 64 << 20
"""Largest message either side receives."""

WEIGHTS_CHUNK_BYTES = 1 << 20
"""Bytes of one chunk of a weights snapshot: the size at which Python's gRPC is fastest."""

MAX_WEIGHTS_WAIT_S = 30.0
"""Longest a GetWeights call waits for a version."""

UNARY_DEADLINE_S = 20.0
"""Deadline of calls that answer at once."""

WEIGHTS_DEADLINE_S = 120.0
"""Deadline of a weights transfer, beside the wait."""

MAX_WEIGHTS_DEADLINE_S = 300.0
"""Longest deadline a learner takes for it. There must be one: it is what frees the memory of
a call whose client does not read."""

WRITE_DEADLINE_S = 20.0
"""Time a client has to take one message of a stream; 1 MiB of weights at the most."""

HELLO_DEADLINE_S = 10.0
"""Time a client has to say hello on a new stream."""
