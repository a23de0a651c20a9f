"""Where actors are sent: the least loaded rank, and the same one again."""

from __future__ import annotations

from impala_server.front_end.data_plane.rank_table import RankTable
from impala_server.messages import RanksNews

ADDRESSES = ("a:1", "b:2", "c:3")


def test_actor_of_a_learner_alone_stays() -> None:
    assert RankTable().choose("actor") == ""


def test_actors_are_spread_over_the_ranks_before_any_is_reported() -> None:
    table = RankTable()
    table.update(RanksNews(0, ADDRESSES, (0, 0, 0)))

    chosen = [table.choose(f"actor-{number}") for number in range(6)]

    assert chosen == ["", "b:2", "c:3", "", "b:2", "c:3"]


def test_actor_goes_to_the_rank_with_the_fewest_and_comes_back_to_it() -> None:
    table = RankTable()
    table.update(RanksNews(0, ADDRESSES, (5, 4, 1)))
    first = table.choose("actor")
    table.update(RanksNews(0, ADDRESSES, (0, 0, 9)))

    assert first == "c:3"
    assert table.choose("actor") == "c:3"
    assert table.choose("another") == ""


def test_actor_is_placed_anew_when_the_ranks_have_moved() -> None:
    table = RankTable()
    table.update(RanksNews(0, ADDRESSES, (5, 4, 1)))
    table.choose("actor")
    table.update(RanksNews(0, ("a:1", "b:2"), (5, 4)))

    assert table.choose("actor") == "b:2"
