"""An actor goes to the learner rank that Register names, and comes back when that rank is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_server import RunningServer, make_config

from impala_common.errors import InvalidResponseError
from impala_common.run import metrics
from impala_common.testing.patterns import SIGNED_ID
from impala_server.front_end.data_plane.rank_table import RankTable

pytestmark = pytest.mark.timeout(120)


def test_actor_trains_the_rank_it_is_sent_to_and_comes_back_when_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent_to = ""
    monkeypatch.setattr(RankTable, "choose", lambda unused_self, unused_actor_id: sent_to)
    config = make_config(environment={"envs_per_actor": 4})
    with RunningServer(tmp_path / "first", config) as first:
        with RunningServer(tmp_path / "second", config) as second:
            sent_to = second.address
            first.run_actor(SIGNED_ID)
            second.wait_until(lambda status: status.get(metrics.UPDATES, 0) > 5, 60.0)
            first.wait_until(lambda status: status["state"] == "RUNNING")
            at_first = first.supervisor.status.number(metrics.UPDATES) or 0
            sent_to = ""
            first.let_threads_stay()
            second._threads_before |= first._threads_before
            second.let_threads_stay()
        first.wait_until(lambda status: status.get(metrics.UPDATES, 0) > 5, 60.0)

    assert at_first == 0


def test_actor_refuses_an_address_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RankTable, "choose", lambda *unused: "http://elsewhere")
    with RunningServer(tmp_path, make_config(environment={"envs_per_actor": 4})) as server:
        actor = server.run_actor(SIGNED_ID)
        actor.join(30.0)
        error, actor.error = actor.error, None

    assert isinstance(error, InvalidResponseError)
    assert "redirect_address" in str(error)
