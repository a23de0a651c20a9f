"""The one way in which weights leave the front end: a deadline, a slot, timed writes.

Used by GetWeights and GetCandidateWeights on the front end's event loop. Only so many snapshots
are sent at a time, so that neither many readers nor slow ones hold more memory than a bound. A
client that takes no message of it for WRITE_DEADLINE_S is given up, and its slot with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from impala_common.errors import InvalidRequestError
from impala_common.process import failpoints
from impala_common.rpc.limits import MAX_WEIGHTS_DEADLINE_S
from impala_server.front_end.data_plane.timed_write import write_in_time
from impala_server.front_end.data_plane.transfer_slots import TransferSlots

_Context = grpc.aio.ServicerContext[Any, Any]


def require_deadline(context: _Context, method: str) -> None:
    """Raises InvalidRequestError unless the call has a deadline, and not too late a one.

    Without one, gRPC keeps what a client does not read for as long as the client likes.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None or remaining_s > MAX_WEIGHTS_DEADLINE_S:
        raise InvalidRequestError(
            f"{method}: expected a deadline of at most {MAX_WEIGHTS_DEADLINE_S:g} s, got "
            + ("none" if remaining_s is None else f"{remaining_s:.0f} s")
        )


async def send_weights(
    context: _Context,
    slots: TransferSlots,
    prepare: Callable[[], Awaitable[tuple[Any, Iterable[Any]]]],
) -> None:
    """Sends a header and the chunks that follow it.

    Args:
      context: of the call; `require_deadline` was called for it.
      slots: bounds how many are sent to at a time.
      prepare: returns header and chunks, messages or their bytes; called once there is a slot.

    Raises:
      LearnerUnavailableError: no slot was free in time.
    """
    async with slots.take():
        header, chunks = await prepare()
        await write_in_time(context, header)
        for chunk in chunks:
            await write_in_time(context, chunk)
            failpoints.hit("weights.mid_stream")
