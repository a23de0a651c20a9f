"""CandidateSubscriber gives the newest candidate, and none once the run is over."""

from __future__ import annotations

import threading
import types
from collections.abc import Iterator
from typing import Any

from impala_actor.evaluation.candidate_subscriber import CandidateSubscriber
from impala_actor.evaluation.evaluation_client import Task, WatchEnd, Welcome

JOIN_S = 10.0


def make_task(step: int) -> Task:
    return Task(1, f"candidate-{step}", step, step, 4, 0, None, ())  # type: ignore[arg-type]


def subscribe(*messages: Any) -> CandidateSubscriber:
    """Returns a subscriber that has read a stream of these messages to its end."""

    def read() -> Iterator[Any]:
        yield Welcome()
        yield from messages

    client = types.SimpleNamespace(
        stop=threading.Event(),
        heartbeat=types.SimpleNamespace(beat=lambda: None),
        retrying=lambda: lambda attempt: attempt(),
        watch=lambda *unused: types.SimpleNamespace(messages=read, cancel=lambda: None),
    )
    subscriber = CandidateSubscriber(client, None)  # type: ignore[arg-type]
    if messages and isinstance(messages[-1], WatchEnd):
        subscriber._thread.join(JOIN_S)
    return subscriber


def test_candidate_that_waits_when_the_run_is_over_is_not_taken() -> None:
    """The learner would not give it away, and a client asks for ever. Planted: it is taken."""
    subscriber = subscribe(make_task(1), make_task(2), WatchEnd(is_finished=True))

    assert subscriber.take() is None
    subscriber.close()


def test_candidate_that_was_played_is_not_taken_again() -> None:
    subscriber = subscribe(make_task(1))

    assert subscriber.take() == make_task(1)
    assert not subscriber._is_over
    subscriber.close()
    assert subscriber.take(but="candidate-1") is None
