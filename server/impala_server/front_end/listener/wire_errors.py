"""`translated`: converts errors of servicer methods to gRPC status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from impala_common.errors import DamagedRequestError, ImpalaError
from impala_common.process.logs import printable
from impala_common.rpc.errors import status_of

_LOG = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def translated(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Aborts the call with the gRPC status of any error raised inside."""
    try:
        yield
    except (grpc.aio.AbortError, grpc.aio.UsageError, asyncio.CancelledError, GeneratorExit):
        raise
    except ImpalaError as error:
        await context.abort_with_status(status_of(error))
    except DecodeError:
        _LOG.warning("bytes that are no message from %s", printable(context.peer(), 80))
        refusal = DamagedRequestError("the bytes of the request are no message of this method")
        await context.abort_with_status(status_of(refusal))
    except TimeoutError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"the learner took too long: {error}")
    except Exception as error:
        await context.abort_with_status(status_of(error))
