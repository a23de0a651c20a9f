"""Answers: sends the newest actions of slots to their clients, and says which slots are lost.

Used by the dispatcher, on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from impala_policy_server.action_encoder import ActionEncoder
from impala_policy_server.clients import Client, ClientStream, ClientTable
from impala_policy_server.slot_arrays import Array
from impala_policy_server.slot_table import SlotTable
from impala_rl.v1 import policy_pb2


class Answers:
    """Answers from one table of slots."""

    def __init__(self, clients: ClientTable, table: SlotTable, encoder: ActionEncoder) -> None:
        """Answers the clients of `clients`, whose slots are in `table`."""
        self._clients = clients
        self._table = table
        self._encoder = encoder

    def send_actions(self, places: Array) -> None:
        """Sends the newest actions of the slots at int64 [n] `places`."""
        if not places.size:
            return
        table = self._table
        versions = table.versions[places]
        if (versions != versions[0]).any():
            for version in np.unique(versions):
                self.send_actions(places[versions == version])
            return
        places = self._sort_by_client(places)
        num, version = len(places), int(versions[0])
        slots = table.slots[places].tolist()
        step_numbers = table.step_numbers[places].tolist()
        parts = [(data, len(data) // num) for data in self._encoder.encode(table.actions[places])]
        for client, stream, start, stop in self._each_client(places):
            response = policy_pb2.PlayResponse()
            actions = response.actions
            actions.slots.extend(slots[start:stop])
            actions.step_numbers.extend(step_numbers[start:stop])
            actions.parts.extend([data[start * size : stop * size] for data, size in parts])
            actions.policy_version = version
            if client.wants_logits:
                actions.logits = table.logits[places[start:stop]].tobytes()
            stream.send(response)

    def send_lost(self, places: Array) -> None:
        """Says that nothing is known of the slots at int64 [n] `places`."""
        if not places.size:
            return
        places = self._sort_by_client(places)
        slots = self._table.slots[places].tolist()
        for _, stream, start, stop in self._each_client(places):
            response = policy_pb2.PlayResponse()
            response.lost_slots.slots.extend(slots[start:stop])
            stream.send(response)

    def _sort_by_client(self, places: Array) -> Array:
        numbers = self._table.client_numbers[places]
        return places[np.argsort(numbers, kind="stable")]

    def _each_client(self, places: Array) -> Iterator[tuple[Client, ClientStream, int, int]]:
        """Yields each client that has a stream, and where in `places`, sorted, its slots are.

        A client without one repeats its observations on its next stream.
        """
        numbers = self._table.client_numbers[places]
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
        for number, start, stop in zip(
            numbers[starts].tolist(), starts, [*starts[1:], len(places)], strict=True
        ):
            client = self._clients.numbered(number)
            if client.stream is not None:
                yield client, client.stream, start, stop
