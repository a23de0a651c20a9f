"""Sessions of actors: indexes, seeds, fencing, and the bounds of the table."""

from __future__ import annotations

import logging

import pytest

from impala_common.errors import BannedError, CapacityError, InvalidRequestError, StaleSessionError
from impala_server.front_end.data_plane.sessions import ActorSession, SessionTable


def make_table(max_actors: int = 4, run_seed: int = 1, learner_life: int = 0) -> SessionTable:
    return SessionTable(max_actors, run_seed, learner_life)


def register(table: SessionTable, actor_id: str, run_id: int = 7) -> ActorSession:
    return table.register(actor_id, run_id, 8, "host")


def test_register_of_several_actors_gives_each_its_index_and_seed() -> None:
    table = make_table()

    sessions = [register(table, name) for name in "abc"]

    assert [session.index for session in sessions] == [0, 1, 2]
    assert [session.epoch for session in sessions] == [1, 1, 1]
    assert len({table.seed_of(session) for session in sessions}) == 3


def test_register_again_keeps_the_index_and_fences_the_older_life() -> None:
    table = make_table()
    old = register(table, "a", run_id=7)
    register(table, "b")

    new = register(table, "a", run_id=8)

    assert (new.index, new.epoch) == (old.index, old.epoch + 1)
    assert table.seed_of(new) != table.seed_of(old)
    assert table.find("a", 8, new.epoch) is new
    with pytest.raises(StaleSessionError, match="register again"):
        table.find("a", 7, old.epoch)


@pytest.mark.parametrize(
    ("actor_id", "run_id", "epoch"),
    [("a", 7, 2), ("a", 7, 0), ("a", 8, 1), ("b", 7, 1), ("", 0, 0)],
)
def test_find_of_another_life_is_stale(actor_id: str, run_id: int, epoch: int) -> None:
    table = make_table()
    register(table, "a", run_id=7)

    with pytest.raises(StaleSessionError):
        table.find(actor_id, run_id, epoch)


def test_seed_of_session_depends_on_seed_and_life_of_the_run() -> None:
    tables = [make_table(run_seed=seed, learner_life=life) for seed in (1, 2) for life in (0, 1)]

    seeds = [table.seed_of(register(table, "a")) for table in tables]

    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    again = make_table(run_seed=1, learner_life=0)
    assert again.seed_of(register(again, "another-name")) == seeds[0]


def test_register_when_max_actors_are_connected_is_refused() -> None:
    table = make_table(max_actors=2)
    for name in "ab":
        register(table, name).num_streams += 1

    with pytest.raises(CapacityError, match=r"2 actors \(max_actors\)"):
        register(table, "c")

    assert register(table, "a").epoch == 2  # one that is known may always come back
    assert table.num_connected == 1


def test_actor_that_left_comes_back_only_where_there_is_room() -> None:
    """Seen to fail: a known actor was taken in beyond max_actors."""
    table = make_table(max_actors=2)
    sessions = {name: register(table, name) for name in "ab"}
    sessions["b"].num_streams += 1
    register(table, "c").num_streams += 1

    with pytest.raises(CapacityError):
        register(table, "a")

    sessions["b"].num_streams -= 1
    assert register(table, "a").epoch == 2


def test_register_when_an_actor_has_left_takes_its_place() -> None:
    table = make_table(max_actors=1)
    first = register(table, "a")
    first.num_streams += 1
    first.num_streams -= 1

    assert register(table, "b").index == 1
    assert table.num_connected == 0


@pytest.mark.parametrize(
    "actor_id",
    ["", " ", "-a", ".a", "a b", "a/b", "a\n", "\na", "a\0", "é", "a" * 65, "a\x1b[31m", "\u0661"],
)
def test_register_with_a_name_that_is_not_allowed_is_refused(actor_id: str) -> None:
    """Seen to fail for "a\\n": `$` matches before a last line end."""
    with pytest.raises(InvalidRequestError, match="expected 1 to 64 letters") as caught:
        register(make_table(), actor_id)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize("actor_id", ["a", "0", "actor-0", "node.7_b", "A" * 64])
def test_register_with_a_name_that_is_allowed_succeeds(actor_id: str) -> None:
    assert register(make_table(), actor_id).actor_id == actor_id


def test_register_of_ever_new_names_remembers_a_bounded_number() -> None:
    table = make_table(max_actors=2)
    connected = register(table, "connected")
    connected.num_streams += 1

    for k in range(100):
        register(table, f"a{k}")

    assert len(table._sessions) <= 8
    assert table.find("connected", 7, 1) is connected
    assert register(table, "last").index == 101  # an index is never given twice
    with pytest.raises(StaleSessionError):
        table.find("a0", 7, 1)


def test_actor_of_absurd_numbers_is_banned_named_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = make_table()
    session = register(table, "odd")
    for _ in range(2):
        table.note_absurd(session, "rewards: got 3e+38")
    assert not session.over.is_set()

    with caplog.at_level(logging.ERROR):
        table.note_absurd(session, "rewards: got 3e+38")

    assert session.over.is_set()
    assert table.quarantined == {"odd": "rewards: got 3e+38"}
    assert "actor odd is quarantined: rewards: got 3e+38" in caplog.text
    with pytest.raises(BannedError, match=r"rewards: got 3e\+38.*impala-admin unban odd"):
        register(table, "odd", run_id=8)
    table.unban("odd")
    assert table.quarantined == {}
    register(table, "odd", run_id=8)


def test_accepted_messages_make_up_for_absurd_ones() -> None:
    table = make_table()
    session = register(table, "glitch")

    for _ in range(10):
        table.note_absurd(session, "observation: got 1e+20")
        for _ in range(16):
            session.note("accepted", 1, 4, 0)

    assert not session.over.is_set()
    assert table.quarantined == {}


def test_believable_return_is_not_for_one_actor_to_decide() -> None:
    table = make_table()
    assert table.believable_return is None
    for name, largest in (("a", 20.0), ("b", None), ("c", 30.0), ("liar", 1e18)):
        register(table, name).max_abs_return = largest

    assert table.believable_return == 30.0
    register(table, "liar", run_id=8)  # another life of the same actor
    assert table.believable_return == 30.0
