"""The sender against a learner that the test plays: window, resending, refusals, ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from sender_bench import ACTOR, WAIT_S, WINDOW, Bench

from impala_actor.acting.unroll_sender import RunFinishedError
from impala_common.errors import (
    ImpalaError,
    InvalidRequestError,
    LearnerUnavailableError,
    QueueClosedError,
    StaleSessionError,
)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def in_thread(work: Callable[[], Any]) -> futures.Future[Any]:
    """Runs blocking work on a thread; its result has a deadline."""
    executor = futures.ThreadPoolExecutor(1)
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return future


def wait_for_failure(bench: Bench) -> Any:
    """Returns the error the actor's loop would see, however full the window is."""
    with bench.sender._changed:
        assert bench.sender._changed.wait_for(lambda: bench.sender._failure, WAIT_S)
    with pytest.raises(ImpalaError) as caught:
        bench.sender.wait_for_room()
    return caught.value


def test_send_says_hello_first_and_numbers_messages_from_one(bench: Bench) -> None:
    for marker in (10, 11):
        bench.send(marker)

    stream = bench.learner.accept()

    messages = [stream.take("unrolls") for _ in range(2)]
    assert [message.sequence_number for message in messages] == [1, 2]
    assert [message.policy_version for message in messages] == [10, 11]
    assert all(message.actor == ACTOR for message in messages)


@pytest.mark.parametrize("first", [2**31 - 1, 2**32 - 1, 2**63 - 3])
def test_numbers_go_on_where_words_of_fewer_bits_end(bench: Bench, first: int) -> None:
    """Sequence numbers have 64 bits in both directions (docs/faults.md, 67)."""
    stream = bench.learner.accept()
    bench.sender._next_sequence = first
    for marker in range(3):
        bench.send(marker)
    numbers = stream.take_numbers(3)
    for number in numbers:
        stream.answer(number, version=2**40)
    bench.wait_for_outcomes(ACCEPTED=3)

    assert numbers == [first, first + 1, first + 2]
    assert bench.versions == [2**40] * 3


def test_wait_for_room_with_window_full_blocks_until_a_verdict(bench: Bench) -> None:
    """Seen to fail with a window that counts messages not yet sent only."""
    for marker in range(WINDOW):
        bench.send(marker)
    stream = bench.learner.accept()
    assert stream.take_numbers(WINDOW) == [1, 2, 3]
    blocked = in_thread(lambda: bench.send(99))
    assert stream.is_silent()
    assert not blocked.done()

    stream.answer(1, version=5)

    blocked.result(WAIT_S)
    assert stream.take("unrolls").policy_version == 99
    assert bench.versions == [5]
    bench.wait_for_outcomes(ACCEPTED=1)


def test_wait_for_room_when_the_actor_stops_ends(bench: Bench) -> None:
    for marker in range(WINDOW):
        bench.send(marker)
    blocked = in_thread(bench.sender.wait_for_room)

    bench.client.stop.set()

    with pytest.raises(QueueClosedError):
        blocked.result(WAIT_S)


def test_send_after_a_broken_stream_resends_what_was_not_answered_oldest_first(
    bench: Bench,
) -> None:
    """Seen to fail with the newest first, and with answered ones resent."""
    for marker in (10, 11, 12):
        bench.send(marker)
    first = bench.learner.accept()
    assert first.take_numbers(3) == [1, 2, 3]
    first.answer(1)
    first.outgoing.put(grpc.StatusCode.UNAVAILABLE)

    second = bench.learner.accept()

    messages = [second.take("unrolls") for _ in range(2)]
    assert [(m.sequence_number, m.policy_version) for m in messages] == [(2, 11), (3, 12)]
    second.answer(2, "DUPLICATE")
    second.answer(3)
    bench.send(13)
    assert second.take_numbers(1) == [4]
    bench.wait_for_outcomes(ACCEPTED=2, DUPLICATE=1)


def test_send_to_a_stream_that_breaks_before_any_answer_tries_again(bench: Bench) -> None:
    bench.send(10)
    for _ in range(2):
        stream = bench.learner.accept()
        assert stream.take_numbers(1) == [1]
        stream.outgoing.put(grpc.StatusCode.UNAVAILABLE)

    assert bench.learner.accept().take_numbers(1) == [1]


def test_verdict_capacity_sends_the_same_unrolls_under_a_new_number(bench: Bench) -> None:
    for marker in (10, 11):
        bench.send(marker)
    stream = bench.learner.accept()
    assert stream.take_numbers(2) == [1, 2]

    stream.answer(1, "CAPACITY")

    again = stream.take("unrolls")
    assert (again.sequence_number, again.policy_version) == (3, 10)
    bench.send(12)  # two are without verdict: there is room for one more
    assert stream.take_numbers(1) == [4]
    assert stream.is_silent()


@pytest.mark.parametrize("outcome", ["STALE", "INVALID", "DUPLICATE"])
def test_verdict_that_refuses_for_good_is_counted_and_forgotten(bench: Bench, outcome: str) -> None:
    bench.send(10)
    stream = bench.learner.accept()
    assert stream.take_numbers(1) == [1]

    stream.answer(1, outcome, version=8)
    bench.send(11)

    assert stream.take_numbers(1) == [2]
    stream.answer(2)
    stream.outgoing.put(grpc.StatusCode.UNAVAILABLE)
    assert bench.learner.accept().is_silent()
    bench.wait_for_outcomes(**{outcome: 1, "ACCEPTED": 1})


def test_verdict_on_an_unknown_number_changes_nothing(bench: Bench) -> None:
    bench.send(10)
    stream = bench.learner.accept()
    stream.answer(99)
    stream.answer(99, "CAPACITY")
    assert stream.take_numbers(1) == [1]

    stream.answer(1)
    bench.send(11)

    assert stream.take_numbers(1) == [2]


def test_drain_finished_ends_the_actors_work(bench: Bench) -> None:
    bench.send(10)
    stream = bench.learner.accept()

    stream.drain("FINISHED")

    assert type(wait_for_failure(bench)) is RunFinishedError


def test_drain_stopping_reconnects_and_resends() -> None:
    bench = Bench()
    try:
        bench.send(10)
        stream = bench.learner.accept()
        assert stream.take_numbers(1) == [1]

        stream.drain("STOPPING")
        stream.outgoing.put(None)

        assert bench.learner.accept().take_numbers(1) == [1]
    finally:
        bench.close()


def test_learner_that_stays_away_for_connect_timeout_is_given_up() -> None:
    bench = Bench(connect_timeout_s=0.5)
    try:
        bench.learner.accept()
        bench.learner.close()

        assert type(wait_for_failure(bench)) is LearnerUnavailableError
    finally:
        bench.close()


@pytest.mark.parametrize("error", [StaleSessionError("over"), InvalidRequestError("bad")])
def test_refusal_of_the_stream_reaches_the_actors_loop(bench: Bench, error: ImpalaError) -> None:
    for marker in range(WINDOW):
        bench.send(marker)
    blocked = in_thread(bench.sender.wait_for_room)

    bench.learner.accept().outgoing.put(error)

    with pytest.raises(type(error), match=str(error)):
        blocked.result(WAIT_S)


def test_close_sends_what_is_left_and_then_goodbye(bench: Bench) -> None:
    for marker in (10, 11):
        bench.send(marker)
    stream = bench.learner.accept()
    closing = in_thread(bench.sender.close)

    assert stream.take_numbers(2) == [1, 2]
    goodbye = stream.take("goodbye")
    stream.take_end()
    stream.outgoing.put(None)

    closing.result(WAIT_S)
    assert 0 < len(goodbye.text) <= 200
    assert not bench.sender._thread.is_alive()


def test_close_when_the_learner_is_away_ends_without_waiting_for_it() -> None:
    bench = Bench()
    bench.learner.accept()
    bench.learner.close()

    bench.close()

    assert not bench.sender._thread.is_alive()
