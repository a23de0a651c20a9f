"""PlayState: what one life of a client knows, and what the protocol says to do next.

Shared by the blocking and the asyncio client, which own one each and do the waiting. Does no input
or output. After a broken stream the observations without an action are sent again, and the server
answers as it did, or would have done, the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from impala_rl.v1 import learner_pb2, policy_pb2
from impala_thin.attempts import Attempts
from impala_thin.batches import Actions, Observations
from impala_thin.compression import Compressor
from impala_thin.environment import Environment
from impala_thin.errors import (
    EpisodeLostError,
    RefusedError,
    RunFinishedError,
    StoppedError,
)
from impala_thin.hello import MAX_MESSAGE_BYTES, ClientSettings
from impala_thin.message_pieces import select, split

GOODBYE = policy_pb2.PlayRequest(goodbye=policy_pb2.PlayGoodbye(text="the client ends"))
GOODBYE_S = 2.0
"""Longest wait for the end of a stream after goodbye."""
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_OF_BROKEN_STREAMS = (
    *_RETRIED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)
_DETAILS = "grpc-status-details-bin"
_DOMAIN = b"\x12\x09impala_rl"
"""Field `domain` of google.rpc.ErrorInfo on the wire: found without a package for its messages."""
_LOG = logging.getLogger(__name__)


class BrokenStreamError(Exception):
    """The stream is over, and another may be opened. Never leaves the clients."""


class PlayState:
    """One life of a client with N slots.

    Attributes:
      environment: what is played.
      num_slots: N.
      hello: first message of each stream.
      is_stopped: whether the client was asked to end.
      attempts: waits before new streams.
    """

    def __init__(self, environment: Environment, num_slots: int, settings: ClientSettings) -> None:
        """Draws a life."""
        self.environment = environment
        self.num_slots = num_slots
        self.hello = settings.make_hello(environment, num_slots)
        self.is_stopped = False
        self.attempts = Attempts(settings)
        self._compressor = Compressor(is_on=settings.compresses)
        self._max_bytes = MAX_MESSAGE_BYTES
        self._told: set[grpc.StatusCode] = set()
        self._next_steps = [0] * num_slots
        self._unanswered: dict[int, tuple[policy_pb2.SlotObservations, int]] = {}

    @property
    def num_unanswered(self) -> int:
        """Slots that wait for an action."""
        return len(self._unanswered)

    def pack(self, given: Observations) -> list[policy_pb2.PlayRequest]:
        """Returns observations as messages, one if it may be that large, and notes that they wait.

        Raises:
          ValueError: a slot has no action of its last observation yet.
          RefusedError: the observation of one slot is more than the server reads.
          StoppedError: the client was asked to end.
        """
        self.require_running()
        for slot in given.slots:
            if slot in self._unanswered:
                raise ValueError(f"slot {slot} waits for the action of its last observation")
        message = self._make_message(given, [self._next_steps[slot] for slot in given.slots])
        requests = self._cut(message)
        for index, slot in enumerate(given.slots):
            self._unanswered[slot] = (message, index)
            self._next_steps[slot] += 1
        return requests

    def holds(self, given: Observations) -> bool:
        """Returns whether these very observations wait already: they are given once more.

        That is how to try again after a ServerUnavailableError.
        """
        places = [self._unanswered.get(slot) for slot in given.slots]
        if self.is_stopped or not places or places[0] is None:
            return False
        message = places[0][0]
        if places != [(message, index) for index in range(len(message.slots))]:
            return False
        return message == self._make_message(given, message.step_numbers)

    def is_same(self, one: Observations, other: Observations) -> bool:
        """Returns whether two observations of the same slots say the same."""
        numbers = [0] * len(one.slots)
        return self._make_message(one, numbers) == self._make_message(other, numbers)

    def unpack(self, response: policy_pb2.PlayResponse | None) -> Actions | None:
        """Returns the actions that were waited for in a response; None: there are none.

        Raises:
          EpisodeLostError: slots have to be reset; the others' actions are still to come.
          RunFinishedError: the run has finished.
          BrokenStreamError: another stream is needed.
          RefusedError: the server's actions do not fit.
        """
        kind = None if response is None else response.WhichOneof("payload")
        if response is None or kind == "drain":
            self.require_running()
            if response is not None:
                _raise_if_finished(response)
            raise BrokenStreamError
        if kind == "actions":
            return self._take(response.actions)
        if kind == "lost_slots":
            slots = [slot for slot in response.lost_slots.slots if slot in self._unanswered]
            for slot in slots:
                del self._unanswered[slot]
            if slots:
                raise EpisodeLostError(slots)
        return None

    def unpack_error(self, error: Any) -> BrokenStreamError:  # Any: grpc.RpcError and grpc.Call
        """Returns the error of a broken stream, after which another may be opened.

        Only a policy server's own refusal, which has a reason of this project, ends a client: all
        other errors are of the network, or of something on the way such as a proxy.

        Raises:
          RefusedError: trying again does not help.
          StoppedError: the client was asked to end.
        """
        code, text = error.code(), f"{error.code().name}: {error.details()}"
        if _has_reason(error) and code not in _RETRIED:
            raise RefusedError(text) from error
        self.require_running()
        if code not in _OF_BROKEN_STREAMS and code not in self._told:
            self._told.add(code)
            _LOG.warning("no policy server said this, so it is tried again: %s", text)
        return BrokenStreamError(text)

    def require_welcome(self, response: policy_pb2.PlayResponse | None) -> None:
        """Raises BrokenStreamError or RunFinishedError unless this first response is a welcome."""
        if response is not None and response.WhichOneof("payload") == "welcome":
            limit = response.welcome.max_message_bytes
            self._max_bytes = min(limit, MAX_MESSAGE_BYTES) if limit > 0 else MAX_MESSAGE_BYTES
            return
        if response is None:
            raise BrokenStreamError("the stream ended")
        _raise_if_finished(response)
        raise BrokenStreamError("the policy server is stopping")

    def require_running(self) -> None:
        """Raises StoppedError if the client was asked to end."""
        if self.is_stopped:
            raise StoppedError("the client was asked to stop")

    def repeat(self) -> list[policy_pb2.PlayRequest]:
        """Returns what has no answer, as the messages there were: first on a new stream.

        Raises:
          RefusedError: the observation of one slot is more than the server reads.
        """
        messages: dict[int, tuple[policy_pb2.SlotObservations, list[int]]] = {}
        for message, index in self._unanswered.values():
            messages.setdefault(id(message), (message, []))[1].append(index)
        return [
            request
            for message, chosen in messages.values()
            for request in self._cut(
                message if len(chosen) == len(message.slots) else select(message, chosen)
            )
        ]

    def _make_message(
        self, given: Observations, step_numbers: Sequence[int]
    ) -> policy_pb2.SlotObservations:
        return policy_pb2.SlotObservations(
            slots=given.slots,
            step_numbers=step_numbers,
            leaves=self.environment.encode(given.values, len(given.slots), given.masks),
            rewards=given.rewards,
            terminated=given.terminated,
            truncated=given.truncated,
            is_first=given.is_first,
        )

    def _cut(self, message: policy_pb2.SlotObservations) -> list[policy_pb2.PlayRequest]:
        """Returns a message as requests that the server reads, compressed where that pays."""
        requests = list(split(message, self._max_bytes))
        for request in requests:
            self._compressor.compress(request)
        return requests

    def _take(self, message: policy_pb2.SlotActions) -> Actions | None:
        slots, num = list(message.slots), len(message.slots)
        wanted = [
            index
            for index, (slot, step) in enumerate(zip(slots, message.step_numbers, strict=False))
            if slot in self._unanswered and step == self._next_steps[slot] - 1
        ]
        try:
            values = self.environment.decode(message.parts, num)
            given = np.frombuffer(message.logits, np.float32)
            logits = given.reshape(num, -1) if given.size else None
        except ValueError as error:
            raise RefusedError(f"the server's actions have another size: {error}") from error
        actions = Actions(slots, values, message.policy_version, logits)
        for index in wanted:
            del self._unanswered[slots[index]]
        if wanted:
            self.attempts.note_answer()
        if len(wanted) == num:
            return actions
        return actions.select(wanted) if wanted else None


def _raise_if_finished(response: policy_pb2.PlayResponse) -> None:
    if response.drain.reason == learner_pb2.DRAIN_REASON_FINISHED:
        raise RunFinishedError("the run has finished")


def _has_reason(error: Any) -> bool:  # Any: grpc.RpcError and grpc.Call
    """Returns whether the status of an error names this project as the one that made it."""
    metadata = error.trailing_metadata() or ()
    return any(key == _DETAILS and _DOMAIN in bytes(value) for key, value in metadata)
