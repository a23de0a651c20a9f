"""FramePipe: messages arrive whole and in order, and no send or receive blocks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common.errors import CapacityError, QueueClosedError
from impala_server.learner.batch_queue import BatchQueue
from impala_server.storage.frame_pipe import MAX_FRAME_BYTES, FramePipe, make_pair
from impala_server.storage.handoff import FreedSlot, HandoffPipe

BOUND = 1 << 20
Pipes = tuple[FramePipe, FramePipe]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    one, two = (FramePipe(end, "the peer", BOUND) for end in make_pair())
    yield one, two
    one.close()
    two.close()


def fill(pipe: FramePipe) -> int:
    """Sends messages until some of them wait; returns how many it sent."""
    number = 0
    while not pipe.num_unsent_bytes:
        pipe.send(number.to_bytes(4, "big") * 1000)
        number += 1
    return number


@given(st.lists(st.binary(max_size=100_000), max_size=20))
@settings(max_examples=30, deadline=None)
def test_receive_returns_what_was_sent_in_order(messages: list[bytes]) -> None:
    one, two = (FramePipe(end, "the peer", 1 << 24) for end in make_pair())
    got: list[bytes | None] = []
    for message in messages:
        one.send(message)
    while len(got) < len(messages):
        one.flush()
        got.append(two.receive(1.0))

    assert got == messages
    assert two.receive(0.0) is None
    one.close()
    two.close()


def test_send_to_a_peer_that_does_not_read_waits_in_a_bounded_buffer(pipes: Pipes) -> None:
    """Seen to fail with a socket that blocks: the test ran into its timeout."""
    one, two = pipes
    number = fill(one)
    while one.num_unsent_bytes + 4004 <= BOUND:
        one.send(number.to_bytes(4, "big") * 1000)
        number += 1
    with pytest.raises(CapacityError, match="the peer does not read"):
        one.send(bytes(4000))
    assert one.num_unsent_bytes <= BOUND
    assert not one.has_room()

    got = []
    while len(got) < number:
        one.flush()
        message = two.receive(1.0)
        assert message is not None
        got.append(int.from_bytes(message[:4], "big"))

    assert got == list(range(number))
    assert one.flush()
    assert one.has_room()


def test_send_that_leaves_something_waiting_says_so(pipes: Pipes) -> None:
    one, _ = pipes
    told = []
    one.on_unsent = lambda: told.append(one.num_unsent_bytes)

    fill(one)

    assert len(told) == 1
    assert told[0] > 0


def test_send_of_too_long_a_message_is_refused_and_sends_nothing(pipes: Pipes) -> None:
    one, two = pipes
    with pytest.raises(CapacityError, match="at most"):
        one.send(bytes(MAX_FRAME_BYTES + 1))

    assert two.receive(0.0) is None


def test_has_room_is_false_long_before_the_pipe_is_full(pipes: Pipes) -> None:
    """News that may be left out leaves room for the last words of a process that ends."""
    one, two = pipes
    while one.has_room():
        one.send(bytes(1000))
    one.send(b"the end" * 1000)
    assert one.num_unsent_bytes == 0
    one.close()

    last = b""
    with contextlib.suppress(QueueClosedError):
        while (message := two.receive(1.0)) is not None:
            last = message
    assert last == b"the end" * 1000


def test_receive_of_half_a_message_does_not_block(pipes: Pipes) -> None:
    raw, end = make_pair()
    pipe = FramePipe(end, "the peer", BOUND)
    raw.send(b"\x05\0\0\0abc")

    assert pipe.receive(0.0) is None
    assert pipe.has_data()
    raw.send(b"de")

    assert pipe.receive(1.0) == b"abcde"
    raw.close()
    pipe.close()


def test_receive_of_what_is_no_length_ends_the_pipe() -> None:
    raw, end = make_pair()
    pipe = FramePipe(end, "the peer", BOUND)
    raw.send(b"\xff\xff\xff\xff")

    with pytest.raises(QueueClosedError, match="the peer sends no messages"):
        pipe.receive(1.0)
    raw.close()
    pipe.close()


@pytest.mark.parametrize("work", ["send", "flush", "drain"])
def test_work_when_the_peer_is_gone_says_so(pipes: Pipes, work: str) -> None:
    one, two = pipes
    if work != "send":
        fill(one)
    two.close()

    with pytest.raises(QueueClosedError, match="the peer is gone"):
        {"send": lambda: one.send(b"x"), "flush": one.flush, "drain": lambda: one.drain(5.0)}[
            work
        ]()
    assert one.num_unsent_bytes == 0


def test_drain_waits_for_a_peer_that_reads_and_gives_up_on_one_that_does_not(pipes: Pipes) -> None:
    one, two = pipes
    number = fill(one)
    assert not one.drain(0.01)

    reader = threading.Thread(target=lambda: [two.receive(10.0) for _ in range(number)])
    reader.start()
    assert one.drain(10.0)
    reader.join(10.0)


def test_send_after_close_says_that_the_peer_is_gone(pipes: Pipes) -> None:
    one, _ = pipes
    one.close()

    with pytest.raises(QueueClosedError):
        one.send(b"x")
    with pytest.raises(QueueClosedError):
        one.receive(0.0)
    one.close()


def test_batch_queue_gives_slots_back_to_a_front_end_that_does_not_read() -> None:
    """What did not fit follows while the queue waits for batches. Seen to fail with plain sends."""
    ends = make_pair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    front_end, learner = (HandoffPipe(end) for end in ends)
    queue = BatchQueue(learner)
    for slot in range(1000):
        queue.give_back(slot)

    def take() -> None:
        with contextlib.suppress(QueueClosedError):
            queue.take()

    taking = threading.Thread(target=take)
    taking.start()

    got: list[FreedSlot] = []
    while len(got) < 1000:
        assert front_end.frames.has_data() or taking.is_alive()
        if (freed := front_end.receive_free()) is not None:
            got.append(freed)

    assert got == [FreedSlot(slot, True) for slot in range(1000)]
    queue.close()
    taking.join(10.0)
    assert not taking.is_alive()
    front_end.close()
    learner.close()
