"""The pipes between front end and learner: messages arrive unchanged, and death is detected."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from multiprocessing import Pipe

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common.errors import QueueClosedError
from impala_server.learner.batch_queue import BatchQueue
from impala_server.storage.handoff import (
    ActorSeconds,
    ControlPipe,
    FinishedEpisode,
    FreedSlot,
    FullSlot,
    HandoffPipe,
)
from impala_server.storage.process_ends import ProcessEnds, make_ends

NOTHING = ActorSeconds(0.0, 0.0, 0.0)
Pipes = tuple[HandoffPipe, HandoffPipe]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    one, two = Pipe(duplex=True)
    yield HandoffPipe(one), HandoffPipe(two)
    for end in (one, two):
        end.close()


EPISODES = st.builds(FinishedEpisode, st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1))


@given(
    slot=st.integers(0, 2**31 - 1),
    episodes=st.lists(EPISODES, max_size=600),
    seconds=st.tuples(*[st.floats(allow_nan=False)] * 3),
)
@settings(max_examples=50, deadline=None)
def test_receive_full_returns_what_was_sent(
    slot: int, episodes: list[FinishedEpisode], seconds: tuple[float, float, float]
) -> None:
    one, two = Pipe(duplex=True)
    with one, two:
        full = FullSlot(slot, episodes, ActorSeconds(*seconds))

        HandoffPipe(one).send_full(full)

        assert HandoffPipe(two).receive_full(1.0) == full


def test_receive_without_message_returns_none(pipes: Pipes) -> None:
    front_end, learner = pipes

    assert learner.receive_full(0.0) is None
    assert front_end.receive_free() is None


def test_receive_free_returns_slots_in_order(pipes: Pipes) -> None:
    front_end, learner = pipes
    freed = [FreedSlot(3, True), FreedSlot(0, False), FreedSlot(2, True)]
    for one in freed:
        learner.send_free(*one)

    assert [front_end.receive_free() for _ in range(4)] == [*freed, None]


@pytest.mark.parametrize("work", ["receive_full", "receive_free", "send_full", "send_free"])
def test_handoff_when_other_end_is_closed_says_so(pipes: Pipes, work: str) -> None:
    front_end, learner = pipes
    end = {"receive_full": learner, "send_free": learner}.get(work, front_end)
    (front_end if end is learner else learner).close()
    arguments = {
        "receive_full": (1.0,),
        "receive_free": (),
        "send_full": (FullSlot(0, [], NOTHING),),
        "send_free": (0,),
    }

    with pytest.raises(QueueClosedError, match="gone"):
        getattr(end, work)(*arguments[work])


def test_receive_after_last_message_of_a_closed_end_says_so(pipes: Pipes) -> None:
    front_end, learner = pipes
    learner.send_free(5)
    learner.close()

    assert front_end.receive_free() == FreedSlot(5, True)
    with pytest.raises(QueueClosedError):
        front_end.receive_free()


def test_handoff_messages_are_packed_numbers(pipes: Pipes) -> None:
    front_end, learner = pipes

    front_end.send_full(FullSlot(1, [FinishedEpisode(2.5, 3)], ActorSeconds(0.25, 0.5, 1.0)))

    data = learner.connection.recv_bytes()
    assert struct.unpack("<ii3d dq", data) == (1, 1, 0.25, 0.5, 1.0, 2.5, 3)


def test_control_pipe_carries_json_both_ways() -> None:
    one, two = Pipe(duplex=True)
    with one, two:
        left, right = ControlPipe(one), ControlPipe(two)

        left.send("define", environment={"leaves": [1, 2]})
        right.send("refused", text="no")

        assert json.loads(two.recv_bytes()) == {"kind": "define", "environment": {"leaves": [1, 2]}}
        assert left.receive(1.0) == {"kind": "refused", "text": "no"}
        assert right.receive(0.0) is None


def test_control_pipe_when_other_end_is_closed_is_noticed_by_reading_only() -> None:
    one, two = Pipe(duplex=True)
    two.close()
    pipe = ControlPipe(one)

    pipe.send("stop")

    with pytest.raises(QueueClosedError, match="control pipe"):
        pipe.receive(1.0)
    pipe.close()


def test_make_ends_connects_learner_front_end_and_supervisor() -> None:
    learner, front_end, to_learner, to_front_end = make_ends()
    learner.storage.resize(4096)
    try:
        taken_over = ProcessEnds.from_argument(learner.to_argument())

        to_learner.send("a")
        to_front_end.send("b")
        front_end.control.send("c")
        taken_over.handoff.send_free(9)
        taken_over.storage.map()[5] = 7

        assert learner.supervisor.receive(1.0) == {"kind": "a"}
        assert front_end.supervisor.receive(1.0) == {"kind": "b"}
        assert taken_over.control.receive(1.0) == {"kind": "c"}
        assert front_end.handoff.receive_free() == FreedSlot(9, True)
        assert front_end.storage.map()[5] == 7
        assert len(set(learner.fds)) == len(learner.fds) == 5
    finally:
        # taken_over shares its descriptors with learner: each is closed once.
        learner.close_pipes()
        front_end.close_pipes()
        for pipe in (taken_over.supervisor, taken_over.control, taken_over.handoff):
            pipe.connection._handle = None
        for pipe in (to_learner, to_front_end):
            pipe.close()
        for block in (learner.storage, learner.weights):
            block.close()


def test_batch_queue_when_closed_wakes_who_takes(pipes: Pipes) -> None:
    queue = BatchQueue(pipes[1])

    queue.close()

    with pytest.raises(QueueClosedError, match="closed"):
        queue.take()


def test_batch_queue_take_returns_full_slots_and_give_back_frees_them(pipes: Pipes) -> None:
    front_end, learner = pipes
    queue = BatchQueue(learner)
    front_end.send_full(FullSlot(4, [], NOTHING))

    full = queue.take()
    queue.give_back(full.slot)

    assert full.slot == 4
    assert front_end.receive_free() == FreedSlot(4, True)


def test_control_pipe_send_if_room_does_not_wait_for_a_peer_that_does_not_read() -> None:
    """Seen to fail with plain send: the pipe filled up and the test ran into its timeout."""
    one, two = Pipe(duplex=True)
    pipe, peer = ControlPipe(one), ControlPipe(two)
    try:
        for number in range(2000):
            pipe.send_if_room("status", number=number, text="x" * 1000)

        first = peer.receive(1.0)
        assert first is not None
        assert first["number"] == 0
    finally:
        pipe.close()
        peer.close()


def test_control_pipe_send_if_room_to_a_closed_pipe_is_no_error() -> None:
    one, two = Pipe(duplex=True)
    pipe = ControlPipe(one)
    two.close()
    pipe.send_if_room("status")
    pipe.close()
    pipe.send_if_room("status")
