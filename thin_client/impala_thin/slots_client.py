"""SlotsClient: plays N slots over one stream, which is opened again when it breaks.

For one thread. `send` does not wait; `receive` waits for the next answers; `act` is both. After a
broken stream the observations without an action are sent again, and the server answers as it did,
or would have done, the first time.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import grpc
import numpy as np

from impala_rl.v1 import learner_pb2, policy_pb2, policy_pb2_grpc
from impala_thin.environment import Array, Environment
from impala_thin.errors import (
    EpisodeLostError,
    RefusedError,
    RunFinishedError,
    ServerUnavailableError,
    StoppedError,
)
from impala_thin.hello import ClientSettings
from impala_thin.server_address import describe_proxy

_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)
_MAX_WAIT_S = 2.0
_GOODBYE_S = 2.0
_GOODBYE = policy_pb2.PlayRequest(goodbye=policy_pb2.PlayGoodbye(text="the client ends"))
_LISTS = ("terminated", "truncated", "is_first")


class Observations(NamedTuple):
    """Observations of n slots and what led to them.

    Attributes:
      slots: n distinct slots.
      values: batch of n observations, as the observation space is nested.
      rewards: n rewards of the last actions; 0 where is_first.
      terminated: n flags: the episode has ended for good.
      truncated: n flags: the episode was cut.
      is_first: n flags: the observation opens an episode.
    """

    slots: Sequence[int]
    values: Any
    rewards: Sequence[float]
    terminated: Sequence[bool] = ()
    truncated: Sequence[bool] = ()
    is_first: Sequence[bool] = ()


class Actions(NamedTuple):
    """Actions of n slots.

    Attributes:
      slots: n slots.
      values: batch of n actions in the environment's form; meaningless where an episode ended.
      policy_version: of the weights; -1 where an episode ended.
      logits: float32 [n, P]; None unless asked for.
    """

    slots: list[int]
    values: Any
    policy_version: int
    logits: Array | None


class SlotsClient:
    """A client of a policy server. A context manager; `close` says goodbye.

    Attributes:
      environment: what is played.
      num_slots: N.
      num_reconnects: streams after the first.
    """

    def __init__(
        self, environment: Environment, num_slots: int = 1, *, settings: ClientSettings
    ) -> None:
        """Connects when first used."""
        self.environment = environment
        self.num_slots = num_slots
        self.num_reconnects = -1
        self._settings = settings
        self._hello = settings.make_hello(environment, num_slots)
        credentials = settings.credentials()
        self._channel = (
            grpc.insecure_channel(settings.server, settings.options())
            if credentials is None
            else grpc.secure_channel(settings.server, credentials, settings.options())
        )
        self._stub = policy_pb2_grpc.PolicyServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._call: Any = None  # Any: a grpc.Call that iterates over PlayResponse
        self._requests: queue.SimpleQueue[policy_pb2.PlayRequest | None] = queue.SimpleQueue()
        self._is_stopped = False
        self._next_steps = [0] * num_slots
        self._unanswered: dict[int, tuple[policy_pb2.SlotObservations, int]] = {}

    def __enter__(self) -> SlotsClient:
        """Returns itself."""
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Closes."""
        self.close()

    def act(self, given: Observations) -> Actions:
        """Sends observations and returns their actions, in the order of `given.slots`.

        For clients whose slots all wait here; see `send` and `receive`, too.
        """
        self.send(given)
        answers: list[Actions] = []
        num_waiting = len(given.slots)
        while num_waiting > 0:
            answers.append(self.receive())
            num_waiting -= len(answers[-1].slots)
        if len(answers) == 1 and answers[0].slots == list(given.slots):
            return answers[0]
        return _join(answers, given.slots)

    def send(self, given: Observations) -> None:
        """Sends observations of slots that have the action of their last one.

        Raises:
          ThinError: the server refuses this client, or cannot be reached in time.
        """
        message = policy_pb2.SlotObservations(
            slots=given.slots,
            step_numbers=[self._next_steps[slot] for slot in given.slots],
            leaves=self.environment.encode(given.values, len(given.slots)),
            rewards=given.rewards,
            terminated=given.terminated,
            truncated=given.truncated,
            is_first=given.is_first,
        )
        for index, slot in enumerate(given.slots):
            if slot in self._unanswered:
                raise ValueError(f"slot {slot} waits for the action of its last observation")
            self._unanswered[slot] = (message, index)
            self._next_steps[slot] += 1
        self._raise_if_stopped()
        if self._call is None:
            self._connect()
        else:
            self._requests.put(policy_pb2.PlayRequest(observations=message))

    def receive(self) -> Actions:
        """Waits for actions of some of the slots that wait.

        Raises:
          EpisodeLostError: slots have to be reset; the others' actions are still to come.
          RunFinishedError: the run has finished.
          ThinError: the server refuses this client, or cannot be reached in time.
        """
        while True:
            try:
                response = next(self._call, None)
            except grpc.RpcError as error:
                self._raise_if_final(error)
                response = None
            if response is None:
                self._raise_if_stopped()
                self._connect()
                continue
            kind = response.WhichOneof("payload")
            if kind == "actions":
                actions = self._on_actions(response.actions)
                if actions is not None:
                    return actions
            elif kind == "lost_slots":
                slots = [slot for slot in response.lost_slots.slots if slot in self._unanswered]
                for slot in slots:
                    del self._unanswered[slot]
                if slots:
                    raise EpisodeLostError(slots)
            elif kind == "drain":
                if response.drain.reason == learner_pb2.DRAIN_REASON_FINISHED:
                    raise RunFinishedError("the run has finished")
                self._connect()

    def settle(self) -> None:
        """Waits until no slot waits for an action, and drops those that come."""
        while self._unanswered:
            try:
                self.receive()
            except EpisodeLostError:
                continue

    def stop(self) -> None:
        """Says goodbye; `send` and `receive` raise StoppedError. From any thread or signal handler.

        A handler must not raise through `receive` itself: gRPC cannot read the stream on after it.
        """
        self._is_stopped = True
        self._requests.put(_GOODBYE)
        self._requests.put(None)

    def break_stream(self) -> None:
        """Breaks the stream, as a network would; the next `receive` opens another."""
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Says goodbye and disconnects."""
        if self._call is not None:
            if not self._is_stopped:
                self.stop()
            timeout = time.monotonic() + _GOODBYE_S
            try:
                while next(self._call, None) is not None and time.monotonic() < timeout:
                    pass
            except grpc.RpcError:
                pass  # it is over, one way or the other
        self._call = None
        self._channel.close()

    def _on_actions(self, message: policy_pb2.SlotActions) -> Actions | None:
        """Returns the actions in a message that were waited for; None for none."""
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
        if len(wanted) == num:
            return actions
        return _select(actions, wanted) if wanted else None

    def _connect(self) -> None:
        """Opens a stream and repeats what has no answer; waits for the server.

        Raises:
          ThinError: the server refuses this client, or cannot be reached in time.
        """
        timeout_s = self._settings.connect_timeout_s
        start_s, wait_s = time.monotonic(), 0.1
        while True:
            self._raise_if_stopped()
            self._requests.put(None)  # ends the old stream's generator
            self._requests = queue.SimpleQueue()
            self._requests.put(self._hello)
            self._call = self._stub.Play(_generate(self._requests))
            try:
                welcome = next(self._call, None)
            except grpc.RpcError as error:
                self._raise_if_final(error)
                text = error.details()
            else:
                if welcome is not None and welcome.WhichOneof("payload") == "welcome":
                    break
                if welcome is not None and welcome.drain.reason:
                    text = "the policy server is stopping"
                    if welcome.drain.reason == learner_pb2.DRAIN_REASON_FINISHED:
                        raise RunFinishedError("the run has finished")
                else:
                    text = "the stream ended"
            if timeout_s and time.monotonic() - start_s > timeout_s:
                raise ServerUnavailableError(
                    f"no policy server at {self._settings.server}"
                    f"{describe_proxy(self._settings.server)} within {timeout_s:g} s: {text}"
                )
            time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            wait_s = min(2 * wait_s, _MAX_WAIT_S)
        self.num_reconnects += 1
        for message in _repeat(self._unanswered.values()):
            self._requests.put(policy_pb2.PlayRequest(observations=message))

    def _raise_if_stopped(self) -> None:
        if self._is_stopped:
            raise StoppedError("the client was asked to stop")

    def _raise_if_final(self, error: Any) -> None:  # Any: grpc.RpcError that is a grpc.Call
        """Raises a ThinError for a status after which trying again does not help."""
        if error.code() not in _RETRIED:
            raise RefusedError(f"{error.code().name}: {error.details()}") from error


def _generate(
    requests: queue.SimpleQueue[policy_pb2.PlayRequest | None],
) -> Iterator[policy_pb2.PlayRequest]:
    """Yields the requests of one stream, on a thread of gRPC's, until None."""
    while (request := requests.get()) is not None:
        yield request


def _repeat(
    unanswered: Iterable[tuple[policy_pb2.SlotObservations, int]],
) -> Iterator[policy_pb2.SlotObservations]:
    """Yields messages with the observations that have no answer, one for each message there was."""
    messages: dict[int, tuple[policy_pb2.SlotObservations, list[int]]] = {}
    for message, index in unanswered:
        messages.setdefault(id(message), (message, []))[1].append(index)
    for message, chosen in messages.values():
        num = len(message.slots)
        if len(chosen) == num:
            yield message
            continue
        part = policy_pb2.SlotObservations(
            slots=[message.slots[index] for index in chosen],
            step_numbers=[message.step_numbers[index] for index in chosen],
            rewards=[message.rewards[index] for index in chosen],
        )
        for leaf in message.leaves:
            size = len(leaf) // num
            part.leaves.append(b"".join(leaf[at * size : (at + 1) * size] for at in chosen))
        for name in _LISTS:
            flags = getattr(message, name)
            if flags:
                getattr(part, name).extend(flags[index] for index in chosen)
        yield part


def _select(actions: Actions, chosen: Sequence[int]) -> Actions:
    return Actions(
        [actions.slots[index] for index in chosen],
        _map(actions.values, lambda array: array[list(chosen)]),
        actions.policy_version,
        None if actions.logits is None else actions.logits[list(chosen)],
    )


def _join(answers: Sequence[Actions], slots: Sequence[int]) -> Actions:
    """Returns the answers as one, in the order of `slots`."""
    found = [slot for answer in answers for slot in answer.slots]
    values = [answer.values for answer in answers]
    logits = [answer.logits for answer in answers if answer.logits is not None]
    joined = Actions(
        found,
        _map(values[0], lambda *arrays: np.concatenate(arrays), *values[1:]),
        max(answer.policy_version for answer in answers),
        np.concatenate(logits) if logits else None,
    )
    place = {slot: index for index, slot in enumerate(found)}
    return _select(joined, [place[slot] for slot in slots])


def _map(value: Any, work: Any, *others: Any) -> Any:  # Any: arrays, nested
    if isinstance(value, dict):
        return {key: _map(value[key], work, *(one[key] for one in others)) for key in value}
    if isinstance(value, tuple):
        return tuple(_map(*each[:1], work, *each[1:]) for each in zip(value, *others, strict=True))
    return work(value, *others)
