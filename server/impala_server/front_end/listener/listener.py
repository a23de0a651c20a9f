"""Listener: a gRPC server that is replaced on the same address if it dies.

Runs on the front end's event loop, once for the data plane and once for
administration. grpc.aio takes calls in with one loop; if that loop ends, the server is dead.
`PathGuard` prevents the known cause; `Listener` handles unknown causes, and gRPC versions that
`PathGuard` does not fit. Calls of a dead server end within seconds, as if the connection had
broken: actors reconnect and resend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.1
_RETRY_S = 0.25
_STREAMS_END_S = 1.0

Build = Callable[[str], tuple[grpc.aio.Server, str]]
"""Makes a server that is not started yet, bound to an address (at first "", then the one it
returned), and returns both."""


class Listener:
    """One address and the server behind it."""

    def __init__(self, build: Build) -> None:
        """Makes and binds the first server.

        Args:
          build: makes a server; called again each time one has died.

        Raises:
          AddressInUseError: the address is taken.
          ConfigError: a file cannot be used.
        """
        self._build = build
        self._server, self.address = build("")
        self._watching: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self.num_revivals = 0

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.start()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self, grace_s: float) -> None:
        """Ends all calls, after `grace_s` by force; returns when all servers are gone."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        for task in self._retired:
            task.cancel()
        if self._retired:
            await asyncio.wait(self._retired)
        await self._server.stop(grace_s)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if not _is_running(self._server):
                await self._revive()

    async def _revive(self) -> None:
        """Replaces the dead server; tries again until the address is free."""
        dead = asyncio.create_task(_retire(self._server))
        self._retired.add(dead)
        dead.add_done_callback(self._retired.discard)
        self.num_revivals += 1
        _LOG.error("the server on %s died: making a new one", self.address)
        while True:
            try:
                server, _ = self._build(self.address)
                await server.start()
            except Exception as error:  # of any kind: the port must open again
                _LOG.error("not yet: %s", error)
                await asyncio.sleep(_RETRY_S)
            else:
                self._server = server
                return


def _is_running(server: grpc.aio.Server) -> bool:
    """Returns whether a started server still takes calls; gRPC has no public way to ask."""
    core = getattr(server, "_server")  # noqa: B009 (no such attribute in the stubs)
    return bool(core.is_running())


async def _retire(server: grpc.aio.Server) -> None:
    """Lets the streams of a dead server go on for a while, then frees it."""
    try:
        await server.stop(_STREAMS_END_S)
    except asyncio.CancelledError:
        await server.stop(None)
