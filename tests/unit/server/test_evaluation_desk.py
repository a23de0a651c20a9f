"""The front end's desk: one candidate waits, each evaluator plays one, the rest is dropped."""

from __future__ import annotations

import pytest

from impala_common.errors import CapacityError, LearnerUnavailableError, StaleSessionError
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


def test_join_of_a_name_that_is_here_is_refused_until_it_leaves() -> None:
    """Seen to fail: the second stream took over the seat."""
    desk = EvaluationDesk(lambda unused: None)
    old = desk.join("judge")
    desk.offer(candidate(1))
    ticket = old.ticket

    with pytest.raises(LearnerUnavailableError, match="here already"):
        desk.join("judge")
    desk.leave(old)
    new = desk.join("judge")

    assert new.candidate == candidate(1)
    assert desk.num_evaluators == 1
    for known in (ticket, new.ticket):  # a stream that broke costs no evaluation
        desk.require_ticket("candidate-1", "judge", known)


def test_ticket_counts_until_another_evaluator_is_given_the_candidate() -> None:
    desk = EvaluationDesk(lambda unused: None)
    first = desk.join("first")
    desk.offer(candidate(1))
    ticket = first.ticket
    desk.leave(first)
    desk.require_ticket("candidate-1", "first", ticket)
    second = desk.join("second")

    desk.require_ticket("candidate-1", "second", second.ticket)
    for who, number in (("first", ticket), ("second", ticket), ("second", 0)):
        with pytest.raises(StaleSessionError):
            desk.require_ticket("candidate-1", who, number)
    desk.finish("candidate-1")
    desk.require_ticket("candidate-1", "second", second.ticket)  # its answer may have been lost


def test_join_beyond_the_limit_is_refused() -> None:
    desk = EvaluationDesk(lambda unused: None)
    for index in range(MAX_EVALUATORS):
        desk.join(f"judge-{index}")

    with pytest.raises(CapacityError):
        desk.join("one-too-many")
