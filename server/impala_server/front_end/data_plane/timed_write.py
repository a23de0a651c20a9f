"""Writes one stream message with a deadline; disconnects clients that do not read.

Used on the front end's event loop by every stream whose messages exceed a few bytes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from impala_common.process.logs import printable
from impala_common.rpc.limits import WRITE_DEADLINE_S

_LOG = logging.getLogger(__name__)


async def write_in_time(context: grpc.aio.ServicerContext[Any, Any], response: Any) -> None:
    """Writes a response; ends the call if the client does not read it in time.

    Raises:
      asyncio.CancelledError: the time is up, or the client is gone. The call is over: not even a
        status can be written.
    """
    try:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await context.write(response)
    except TimeoutError:
        _LOG.warning("gave up on %s, who reads nothing", printable(context.peer(), 80))
        raise asyncio.CancelledError from None
    except grpc.aio.InternalError as error:
        peer = printable(context.peer(), 80)
        _LOG.info("%s left while a message was written: %s", peer, error)
        raise asyncio.CancelledError from None
