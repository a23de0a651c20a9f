"""The front end's desk: one candidate waits, each evaluator plays one, the rest is dropped."""

from __future__ import annotations

import pytest

from impala_common.errors import CapacityError, NotFoundError
from impala_server.front_end.evaluation.evaluation_desk import (
    FETCH_LEASE_S,
    LEASE_S,
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


def test_second_stream_of_a_name_cannot_take_a_live_seat() -> None:
    """Seen to fail where the newer stream took the seat and what it played."""
    desk = EvaluationDesk(lambda unused: None)
    seat = desk.join("judge")
    desk.offer(candidate(1))

    with pytest.raises(CapacityError, match="here already"):
        desk.join("judge")

    assert seat.candidate == candidate(1)
    desk.leave(seat)
    assert desk.join("judge").candidate == candidate(1)


def test_only_the_seat_that_holds_a_candidate_may_report_it() -> None:
    desk = EvaluationDesk(lambda unused: None)
    desk.join("judge")
    desk.offer(candidate(1))
    desk.join("other")
    desk.offer(candidate(2))
    desk.offer(candidate(3))

    desk.require_reporter("judge", "candidate-1")
    desk.require_reporter("other", "candidate-2")
    for name, of in [("other", 1), ("nobody", 1), ("judge", 2), ("judge", 3), ("judge", 4)]:
        with pytest.raises(NotFoundError):
            desk.require_reporter(name, f"candidate-{of}")
    desk.finish("candidate-1")
    desk.require_reporter("judge", "candidate-1")  # its answer was lost


def test_squatters_lose_their_seats_after_a_lease_without_a_report() -> None:
    """Seen to fail where four streams that never report held all seats for ever."""
    now_s = 0.0
    desk = EvaluationDesk(lambda unused: None, lambda: now_s)
    squatters = [desk.join(f"squatter-{index}") for index in range(MAX_EVALUATORS)]
    for step in range(MAX_EVALUATORS):
        desk.offer(candidate(step))
        name = f"candidate-{step}"
        desk.note_fetch(name, desk.ticket_of(f"squatter-{step}", name), "")
    now_s = LEASE_S
    with pytest.raises(CapacityError):
        desk.join("honest")

    now_s = LEASE_S + 1.0
    honest = desk.join("honest")
    assert [seat.is_over for seat in squatters] == [True, False, False, False]
    assert honest.candidate == candidate(0)
    desk.offer(candidate(9))

    assert all(seat.is_over for seat in squatters)
    assert not honest.is_over
    desk.finish("candidate-0")
    assert honest.candidate == candidate(9)


def test_seat_that_does_not_fetch_the_weights_is_lost_after_a_minute() -> None:
    """Before: a squatter that was given a candidate held its seat for half an hour."""
    now_s = 0.0
    desk = EvaluationDesk(lambda unused: None, lambda: now_s)
    seats = [desk.join(f"judge-{index}", f"peer-{index}") for index in range(MAX_EVALUATORS)]
    for step in range(MAX_EVALUATORS):
        desk.offer(candidate(step))
    desk.note_fetch("candidate-0", 0, "peer-0")
    desk.note_fetch("candidate-1", desk.ticket_of("judge-1", "candidate-1"), "elsewhere")
    desk.note_fetch("candidate-2", 0, "peer-0")  # another's: counts for nobody
    desk.note_fetch("candidate-3", desk.ticket_of("judge-0", "candidate-3"), "elsewhere")
    now_s = FETCH_LEASE_S + 1.0

    assert desk.join("honest").candidate == candidate(2)
    assert desk.join("other").candidate == candidate(3)
    assert [seat.is_over for seat in seats] == [False, False, True, True]


def test_report_needs_the_ticket_or_the_connection_of_the_seat() -> None:
    """Before: whoever knew the name of an evaluator could report in its place."""
    desk = EvaluationDesk(lambda unused: None)
    seat = desk.join("judge", "here")
    desk.join("other", "elsewhere")
    desk.offer(candidate(1))
    ticket = desk.ticket_of("judge", "candidate-1")

    for wrong in ((0, "elsewhere"), (0, ""), (ticket ^ 1, "here"), (1, "here")):
        with pytest.raises(NotFoundError):
            desk.require_reporter("judge", "candidate-1", *wrong)
    desk.require_reporter("judge", "candidate-1", 0, "here")
    desk.require_reporter("judge", "candidate-1", ticket, "elsewhere")
    desk.leave(desk.join("third", "here"))
    desk.leave(seat)
    with pytest.raises(NotFoundError):  # another has it now
        desk.require_reporter("judge", "candidate-1", ticket, "here")


def test_ticket_stays_good_while_the_stream_is_broken() -> None:
    """A stream that breaks between the episodes and the report costs no evaluation."""
    desk = EvaluationDesk(lambda unused: None)
    seat = desk.join("judge")
    desk.offer(candidate(1))
    ticket = desk.ticket_of("judge", "candidate-1")

    desk.leave(seat)
    desk.require_reporter("judge", "candidate-1", ticket, "elsewhere")
    desk.join("judge")

    assert desk.ticket_of("judge", "candidate-1") == ticket
    desk.require_reporter("judge", "candidate-1", ticket, "elsewhere")


def test_join_beyond_the_limit_is_refused() -> None:
    desk = EvaluationDesk(lambda unused: None)
    for index in range(MAX_EVALUATORS):
        desk.join(f"judge-{index}")

    with pytest.raises(CapacityError):
        desk.join("one-too-many")
