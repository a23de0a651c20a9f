"""Sizes and durations shared by client and server."""

from __future__ import annotations

PROTOCOL_VERSION = 1
"""Version of `impala_rl.v1` this code speaks."""

OLDEST_PROTOCOL_VERSION = 1
"""Oldest version that a learner of this release accepts."""

LONGEST_S = 1e7
"""Largest time that a setting may name: 115 days. Timers and messages have bounds of their own."""

MAX_MESSAGE_BYTES = 64 << 20
"""Largest message either side receives."""

MAX_UNROLL_BYTES = int(0.9 * MAX_MESSAGE_BYTES)
"""Largest unrolls of a message, together; the rest is for episodes and framing."""

WEIGHTS_CHUNK_BYTES = 1 << 20
"""Bytes of one chunk of a weights snapshot; Python's gRPC is fastest at this size."""

MAX_WEIGHTS_WAIT_S = 30.0
"""Longest wait of a GetWeights call for a version."""

UNARY_DEADLINE_S = 20.0
"""Deadline of calls that answer at once."""

WEIGHTS_DEADLINE_S = 120.0
"""Deadline of a weights transfer, beside the wait."""

MAX_WEIGHTS_DEADLINE_S = 300.0
"""Longest deadline that a learner accepts for it. A deadline is required: it frees the memory of a
call whose client does not read."""

WRITE_DEADLINE_S = 20.0
"""Time for a client to read one message of a stream; 1 MiB of weights at most."""

HELLO_DEADLINE_S = 10.0
"""Time for a client to send the hello of a new stream."""
