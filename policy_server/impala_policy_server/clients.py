"""ClientTable: clients, their lives and the places of their slots.

Owned by the dispatcher, on the event loop. A client outlives its streams: after a broken one it
keeps its slots for the slot timeout.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Protocol

from impala_common.errors import CapacityError
from impala_policy_server.slot_arrays import Array
from impala_rl.v1 import policy_pb2

_RATE_S = 2.0


class ClientStream(Protocol):
    """The part of a stream that others use."""

    def send(self, response: policy_pb2.PlayResponse) -> None:
        """Queues a response."""

    def replace(self) -> None:
        """Ends the stream: a newer one takes its place."""

    def fail(self, error: Exception) -> None:
        """Ends the stream with an error."""


@dataclasses.dataclass(slots=True)
class Client:
    """One life of one client.

    Attributes:
      client_id: its name.
      client_run_id: its life.
      number: number of this object, unique in this process.
      slots_hello: what its slots depend on; a stream with another one gets new slots.
      places: int64 [N]: places of its slots in the SlotTable.
      peer: address of its newest stream.
      wants_logits: whether answers hold logits.
      older_lives: client_run_id of lives that this one has replaced, the newest last.
      stream: the open stream, if any.
      left_s: when its last stream ended.
      heard_s: when its last observations came, or its hello.
      num_observations: taken from it, repetitions included.
      num_repetitions: those it sent again.
      steps_per_s: observations per second, lately.
    """

    client_id: str
    client_run_id: int
    number: int
    slots_hello: tuple[int, bool, bool]
    places: Array
    peer: str = ""
    wants_logits: bool = False
    older_lives: tuple[int, ...] = ()
    stream: ClientStream | None = None
    left_s: float = 0.0
    heard_s: float = 0.0
    num_observations: int = 0
    num_repetitions: int = 0
    steps_per_s: float = 0.0
    _measured: tuple[float, int] = (0.0, 0)

    @property
    def is_evaluation(self) -> bool:
        """Whether nothing of its slots is trained."""
        return self.slots_hello[1]

    def note(self, num_observations: int) -> None:
        """Counts the observations of one message."""
        self.heard_s = time.monotonic()
        self.num_observations += num_observations

    def measure(self, now_s: float) -> None:
        """Computes the rate since the last call that was some seconds ago."""
        then_s, then = self._measured
        if now_s - then_s < _RATE_S:
            return
        if then_s:
            self.steps_per_s = (self.num_observations - then) / (now_s - then_s)
        self._measured = (now_s, self.num_observations)


class ClientTable:
    """All clients, at most `max_clients`."""

    def __init__(self, max_clients: int) -> None:
        """Starts without clients."""
        self._max_clients = max_clients
        self._by_id: dict[str, Client] = {}
        self._by_number: dict[int, Client] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Client]:
        """Iterates over a copy."""
        return iter(list(self._by_number.values()))

    def __len__(self) -> int:
        """Clients, those without a stream included."""
        return len(self._by_number)

    @property
    def num_connected(self) -> int:
        """Clients with a stream."""
        return sum(client.stream is not None for client in self)

    def find(self, client_id: str) -> Client | None:
        """Returns the newest life of a client."""
        return self._by_id.get(client_id)

    def numbered(self, number: int) -> Client:
        """Returns the client with this number."""
        return self._by_number[number]

    def measure(self) -> None:
        """Brings the clients' rates up to date."""
        now_s = time.monotonic()
        for client in self:
            client.measure(now_s)

    def require_room(self) -> None:
        """Raises CapacityError if there is no room for one more."""
        if len(self) >= self._max_clients:
            raise CapacityError(
                f"{len(self)} clients are there already, at most {self._max_clients} "
                "(--max-clients)"
            )

    def next_number(self) -> int:
        """Returns a number that no client has had."""
        return next(self._numbers)

    def add(self, client: Client) -> None:
        """Adds a client; its id is free."""
        self._by_id[client.client_id] = client
        self._by_number[client.number] = client

    def remove(self, client: Client) -> None:
        """Removes a client."""
        del self._by_number[client.number]
        if self._by_id.get(client.client_id) is client:
            del self._by_id[client.client_id]
