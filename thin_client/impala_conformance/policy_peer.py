"""PolicyPeer and Player: clients of a policy server, made of raw stubs.

A Player is one life of one client. It keeps the contract unless a rule changes its messages.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from impala_conformance.connection import Connection
from impala_conformance.environment import Array, ObservationMaker, count_logits, decode_actions
from impala_conformance.open_stream import OpenStream
from impala_conformance.rule import ViolationError, require
from impala_rl.v1 import policy_pb2, policy_pb2_grpc, spec_pb2

INVALID = "INVALID_ARGUMENT INVALID_REQUEST"
PROTOCOL_VERSION = 1


class Answer(NamedTuple):
    """The answer to one observation of one slot.

    Attributes:
      step_number: of the observation.
      actions: of each part, [...].
      logits: float32 [P]; empty unless asked for.
      policy_version: of the weights; -1: no action was chosen.
    """

    step_number: int
    actions: tuple[Array, ...]
    logits: Array
    policy_version: int

    def equals(self, other: Answer) -> bool:
        """Returns whether it is the same answer, bit by bit."""
        return (
            self.step_number == other.step_number
            and self.policy_version == other.policy_version
            and self.logits.tobytes() == other.logits.tobytes()
            and all(
                one.tobytes() == two.tobytes()
                for one, two in zip(self.actions, other.actions, strict=True)
            )
        )


class PolicyPeer:
    """What rules of a policy server are played against.

    Attributes:
      environment: what is played.
      patience_s: longest life of a stream.
      is_disposable: whether slots that are trained may be played, and the server filled up.
      connection: how the server is reached.
      stop: makes the server stop; None: that cannot be done.
      stub: for calls that no Player makes.
    """

    def __init__(
        self,
        connection: Connection,
        environment: spec_pb2.EnvironmentSpec,
        *,
        patience_s: float = 10.0,
        is_disposable: bool = False,
        stop: Callable[[], None] | None = None,
    ) -> None:
        """Connects when first used."""
        self.connection = connection
        self.environment = environment
        self.patience_s = patience_s
        self.is_disposable = is_disposable
        self.stop = stop
        self._channel = connection.open()
        self.stub = policy_pb2_grpc.PolicyServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._streams: list[OpenStream] = []

    @property
    def channel(self) -> Any:
        """The connection, for calls of unknown methods."""
        return self._channel

    def stream(self, patience_s: float | None = None) -> OpenStream:
        """Opens a stream and says nothing."""
        stream = OpenStream(self.stub.Play, policy_pb2.PlayRequest, patience_s or self.patience_s)
        self._streams.append(stream)
        return stream

    def player(self, num_slots: int = 1, **hello: Any) -> Player:
        """Returns a new client that has said hello and was welcomed."""
        player = Player(self, num_slots, **hello)
        player.open()
        return player

    def require_refused_hello(self, *expected: str, **hello: Any) -> None:
        """Says hello as a new client, with fields changed; it must be refused."""
        player = Player(self, 1, **hello)
        stream = self.stream()
        stream.send(hello=player.hello)
        stream.require_refused(*expected)

    def close_streams(self) -> None:
        """Ends all streams that were opened."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def require_alive(self) -> None:
        """Raises ViolationError unless a new client gets an action."""
        try:
            player = self.player()
            player.act(player.message(is_first=True))
            player.leave()
        except ViolationError as error:
            raise ViolationError(f"afterwards a new client is not served: {error}") from error
        finally:
            self.close_streams()

    def close(self) -> None:
        """Disconnects."""
        self.close_streams()
        self._channel.close()


class Player:
    """One life of one client.

    Attributes:
      hello: what it says first.
      stream: its newest stream, once opened.
      next_steps: number of each slot's next observation.
      welcome: what the server said last.
    """

    def __init__(self, peer: PolicyPeer, num_slots: int, **hello: Any) -> None:
        """Draws a name and a life."""
        fields: dict[str, Any] = {
            "client_id": f"conformance-{secrets.token_hex(6)}",
            "client_run_id": secrets.randbits(64),
            "protocol_version": PROTOCOL_VERSION,
            "environment": peer.environment,
            "slot_count": num_slots,
            "is_evaluation": not peer.is_disposable,
        }
        self.hello = policy_pb2.PlayHello(**(fields | hello))
        self.stream: OpenStream
        self.welcome = policy_pb2.PlayWelcome()
        self.next_steps = [0] * num_slots
        self._peer = peer
        self._maker = ObservationMaker(peer.environment, seed=num_slots)

    def open(self, patience_s: float | None = None) -> OpenStream:
        """Opens a stream, says hello and waits for the welcome."""
        self.stream = self._peer.stream(patience_s)
        self.stream.send(hello=self.hello)
        response = self.stream.next()
        kind = response.WhichOneof("payload")
        require(kind == "welcome", "welcome as the first answer", kind)
        self.welcome = response.welcome
        return self.stream

    def message(
        self, slots: Sequence[int] | None = None, **lists: Any
    ) -> policy_pb2.SlotObservations:
        """Returns the next observations of `slots` (all), with rewards unless they are first.

        Args:
          slots: which.
          **lists: is_first, terminated, truncated: True for all slots, or a list; `leaves`: arrays.
        """
        chosen = list(range(len(self.next_steps)) if slots is None else slots)
        flags: dict[str, Any] = {  # Any: lists of bools
            name: [value] * len(chosen) if isinstance(value, bool) else value
            for name, value in lists.items()
            if name != "leaves"
        }
        leaves = lists.get("leaves") or self._maker.make(len(chosen))
        is_first = flags.get("is_first") or [False] * len(chosen)
        message = policy_pb2.SlotObservations(
            slots=chosen,
            step_numbers=[self.next_steps[slot] for slot in chosen],
            leaves=[leaf.tobytes() for leaf in leaves],
            rewards=[0.0 if first else 1.0 for first in is_first],
            **flags,
        )
        for slot in chosen:
            self.next_steps[slot] += 1
        return message

    def act(self, message: policy_pb2.SlotObservations) -> dict[int, Answer]:
        """Sends observations and returns the answers by slot."""
        self.stream.send(observations=message)
        return self.answers(dict(zip(message.slots, message.step_numbers, strict=True)))

    def answers(self, expected: dict[int, int]) -> dict[int, Answer]:
        """Returns answers to observations.

        Args:
          expected: slot -> number of its observation.

        Raises:
          ViolationError: others came, or more than one for a slot.
        """
        found: dict[int, Answer] = {}
        while len(found) < len(expected):
            response = self.stream.next()
            kind = response.WhichOneof("payload")
            require(kind == "actions", f"actions of slots {sorted(expected)}", kind)
            for slot, answer in self._read(response.actions):
                require(slot in expected, f"actions of slots {sorted(expected)}", f"slot {slot}")
                require(slot not in found, f"one answer to slot {slot}", "two")
                number = expected[slot]
                require(answer.step_number == number, f"step_number {number}", answer.step_number)
                found[slot] = answer
        return found

    def leave(self) -> None:
        """Says goodbye; the stream must end, and hold no further answer."""
        self.stream.send(goodbye=policy_pb2.PlayGoodbye(text="the rule is over"))
        self.stream.half_close()
        left = [one.WhichOneof("payload") for one in self.stream.read_to_end()]
        require(not left, "no further answer after those to all observations", left)

    def require_lost(self, slots: Sequence[int]) -> None:
        """Reads the next answer, which must name `slots` as lost."""
        response = self.stream.next()
        kind = response.WhichOneof("payload")
        require(kind == "lost_slots", "lost_slots", kind)
        lost = sorted(response.lost_slots.slots)
        require(lost == sorted(slots), f"lost_slots {list(slots)}", lost)

    def _read(self, actions: policy_pb2.SlotActions) -> Iterator[tuple[int, Answer]]:
        num = len(actions.slots)
        require(num > 0, "actions of one slot or more", num)
        numbers = list(actions.step_numbers)
        require(len(numbers) == num, f"{num} step_numbers", len(numbers))
        arrays = decode_actions(self._peer.environment.action, list(actions.parts), num)
        width = count_logits(self._peer.environment.action) if self.hello.wants_logits else 0
        size = 4 * num * width
        require(len(actions.logits) == size, f"{size} bytes of logits", len(actions.logits))
        logits = np.frombuffer(actions.logits, "<f4").reshape(num, width)
        require(
            actions.policy_version >= -1, "policy_version of at least -1", actions.policy_version
        )
        for index, slot in enumerate(actions.slots):
            parts = tuple(array[index] for array in arrays)
            yield slot, Answer(numbers[index], parts, logits[index], actions.policy_version)


@contextlib.contextmanager
def connected(peer: PolicyPeer) -> Iterator[PolicyPeer]:
    """A context that disconnects at its end."""
    try:
        yield peer
    finally:
        peer.close()
