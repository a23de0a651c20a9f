"""ListActors: filters, pages that hold while actors come and go, totals of all that is wanted."""

from __future__ import annotations

import pytest

from impala_common.errors import InvalidRequestError
from impala_rl.v1 import admin_pb2
from impala_server.front_end.admin.actor_listing import list_actors
from impala_server.front_end.data_plane.sessions import SessionTable

NUM_ACTORS = 25
NUM_GONE = 5


@pytest.fixture
def sessions() -> SessionTable:
    """25 actors on two hosts; the last five are gone, and of one unrolls were refused."""
    table = SessionTable(max_actors=100, run_seed=1, learner_life=0)
    for number in range(NUM_ACTORS):
        session = table.register(f"actor-{number}", number, 4, f"rack-{number % 2}")
        session.num_streams = int(number < NUM_ACTORS - NUM_GONE)
        session.note("accepted", 4, 80, number)
    table.all[3].note("invalid", 4, 80, 1)
    return table


def list_all(sessions: SessionTable, size: int) -> list[str]:
    names, token = [], ""
    for _ in range(NUM_ACTORS):
        request = admin_pb2.ListActorsRequest(page_size=size, page_token=token)
        page = list_actors(sessions, request)
        assert len(page.actors) <= size
        names += [actor.actor_id for actor in page.actors]
        if not (token := page.next_page_token):
            return names
    raise AssertionError("pages without an end")


def test_pages_hold_every_actor_once_in_order(sessions: SessionTable) -> None:
    """Seen to fail with the token of the first actor of a page."""
    whole = list_actors(sessions, admin_pb2.ListActorsRequest())

    assert not whole.next_page_token
    assert len(whole.actors) == NUM_ACTORS
    for size in (1, 7, 20, 25, 100):
        assert list_all(sessions, size) == [actor.actor_id for actor in whole.actors]


def test_page_goes_on_behind_the_last_one_although_an_actor_has_left(
    sessions: SessionTable,
) -> None:
    first = list_actors(sessions, admin_pb2.ListActorsRequest(page_size=10))
    sessions.all[2].num_streams = 0

    request = admin_pb2.ListActorsRequest(page_size=10, page_token=first.next_page_token)
    second = list_actors(sessions, request)

    assert first.actors[-1].actor_index == 9
    assert second.actors[0].actor_index == 10


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"text": "actor-1"}, 11),
        ({"text": "rack-1"}, 12),
        ({"is_connected": True}, NUM_ACTORS - NUM_GONE),
        ({"is_rejected": True}, 1),
        ({"text": "nobody"}, 0),
    ],
)
def test_filters_hold_for_rows_and_totals(
    sessions: SessionTable, wanted: dict[str, object], count: int
) -> None:
    answer = list_actors(sessions, admin_pb2.ListActorsRequest(**wanted))  # type: ignore[arg-type]

    assert len(answer.actors) == answer.totals.actor_count == count


def test_totals_are_of_all_pages_and_rates_of_connected_ones(sessions: SessionTable) -> None:
    totals = list_actors(sessions, admin_pb2.ListActorsRequest(page_size=1)).totals

    assert totals.connected_actor_count == NUM_ACTORS - NUM_GONE
    assert totals.environment_slot_count == 4 * (NUM_ACTORS - NUM_GONE)
    assert totals.accepted_unroll_count == 4 * NUM_ACTORS
    assert totals.rejected_unroll_count == 4
    assert totals.max_policy_lag == NUM_ACTORS - NUM_GONE - 1
    assert totals.steps_per_second > 0.0


@pytest.mark.parametrize("token", ["x", "2-1", "0-", "0-1x", "0-\u0661"])
def test_token_of_somebody_else_is_refused(sessions: SessionTable, token: str) -> None:
    with pytest.raises(InvalidRequestError, match="page_token"):
        list_actors(sessions, admin_pb2.ListActorsRequest(page_token=token))
