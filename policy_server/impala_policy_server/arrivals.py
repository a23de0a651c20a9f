"""Arrivals: observations that have come and are taken at the loop's next turn, all together.

Owned by the dispatcher, on the event loop. To take the observations of many clients at once costs
little more than to take those of one. Nothing waits for it: what comes in one turn of the loop is
taken in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from impala_common.errors import InvalidRequestError, StaleSessionError
from impala_policy_server.clients import Client, ClientStream
from impala_rl.v1 import policy_pb2


class Arrival(NamedTuple):
    """One message of observations, and where it came from."""

    client: Client
    stream: ClientStream
    content: policy_pb2.SlotObservations


Take = Callable[[Sequence[Arrival]], None]
"""Takes messages; raises InvalidRequestError, with nothing taken, if one breaks the contract."""


class Arrivals:
    """Messages in the order in which they came."""

    def __init__(self, take: Take) -> None:
        """Hands them to `take`."""
        self._take = take
        self._waiting: list[Arrival] = []

    def add(self, arrival: Arrival) -> None:
        """Adds a message; its stream is told if it cannot be taken."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append(arrival)

    def flush(self) -> None:
        """Takes what waits, now."""
        arrivals, self._waiting = self._waiting, []
        current = [one for one in arrivals if _is_current(one)]
        if not current:
            return
        try:
            self._take(current)
        except InvalidRequestError:
            self._take_singly(current)
        except Exception as error:  # it ends the streams, not the loop's other work
            for arrival in current:
                arrival.stream.fail(error)

    def _take_singly(self, arrivals: Sequence[Arrival]) -> None:
        """Takes one message after another, and ends the streams of those that break the contract.

        Also where one client has sent two messages of one slot.
        """
        failed: set[int] = set()
        for arrival in arrivals:
            if id(arrival.stream) in failed:
                continue
            try:
                self._take([arrival])
            except Exception as error:  # it ends this stream alone
                failed.add(id(arrival.stream))
                arrival.stream.fail(error)


def _is_current(arrival: Arrival) -> bool:
    """Returns whether the slots are still those of this stream; if not, the stream is told."""
    client, stream, _ = arrival
    if client.stream is stream:
        return True
    stream.fail(StaleSessionError(f"a newer stream of client {client.client_id} is open"))
    return False
