"""The front end's desk: one candidate waits, each evaluator plays one, the rest is dropped."""

from __future__ import annotations

import pytest

from impala_common.errors import CapacityError
from impala_server.front_end.evaluation.evaluation_desk import (
    MAX_EVALUATORS,
    EvaluationDesk,
    WaitingCandidate,
)


def candidate(step: int) -> WaitingCandidate:
    return WaitingCandidate(f"candidate-{step}", step, step)


def test_offer_when_one_waits_drops_the_older() -> None:
    dropped: list[str] = []
    desk = EvaluationDesk(dropped.append)

    for step in range(100):
        desk.offer(candidate(step))
    seat = desk.join("judge")

    assert dropped == [f"candidate-{step}" for step in range(99)]
    assert seat.candidate == candidate(99)


def test_finish_hands_the_waiting_candidate_out() -> None:
    desk = EvaluationDesk(lambda unused: None)
    seat = desk.join("judge")
    desk.offer(candidate(1))
    desk.offer(candidate(2))

    desk.finish("candidate-1")

    assert seat.candidate == candidate(2)
    assert not desk.holds("candidate-1")


def test_leave_gives_the_candidate_back_unless_a_newer_one_waits() -> None:
    dropped: list[str] = []
    desk = EvaluationDesk(dropped.append)
    first = desk.join("first")
    desk.offer(candidate(1))
    desk.leave(first)
    second = desk.join("second")
    assert second.candidate == candidate(1)
    desk.offer(candidate(2))

    desk.leave(second)

    assert dropped == ["candidate-1"]
    assert desk.join("third").candidate == candidate(2)


def test_join_of_the_same_evaluator_takes_over_and_leaving_late_changes_nothing() -> None:
    desk = EvaluationDesk(lambda unused: None)
    old = desk.join("judge")
    desk.offer(candidate(1))

    new = desk.join("judge")
    desk.leave(old)

    assert old.is_taken_over
    assert new.candidate == candidate(1)
    assert desk.num_evaluators == 1


def test_join_beyond_the_limit_is_refused() -> None:
    desk = EvaluationDesk(lambda unused: None)
    for index in range(MAX_EVALUATORS):
        desk.join(f"judge-{index}")

    with pytest.raises(CapacityError):
        desk.join("one-too-many")
