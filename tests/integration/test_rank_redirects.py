"""An actor goes to the learner rank that Register names, and comes back when that rank is gone."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest
from running_policy_server import RunningPolicyServer
from running_server import RunningServer, make_config

from impala_common.errors import InvalidResponseError
from impala_common.run import metrics
from impala_common.testing.patterns import SIGNED_ID
from impala_server.front_end.data_plane.rank_table import RankTable
from impala_thin import Environment, Observations, SlotsClient, StoppedError

pytestmark = pytest.mark.timeout(120)

CARTPOLE = Environment.simple((4,), num_actions=2)


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


def test_policy_server_trains_the_rank_it_is_sent_to_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thin actors stay with it, and notice nothing but a wait."""
    sent_to = ""
    monkeypatch.setattr(RankTable, "choose", lambda unused_self, unused_actor_id: sent_to)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(RunningServer(tmp_path / "first"))
        with RunningServer(tmp_path / "second") as second:
            sent_to = second.address
            policy = stack.enter_context(RunningPolicyServer(first.address, slot_timeout_s=60.0))
            client = stack.enter_context(policy.client(CARTPOLE, 8))
            player = threading.Thread(target=play, args=(client,), name="player")
            player.start()
            stack.callback(player.join, 30.0)
            stack.callback(client.stop)
            second.wait_until(lambda status: status.get(metrics.UPDATES, 0) > 5, 60.0)
            at_first = first.supervisor.status.number(metrics.UPDATES) or 0
            sent_to = ""
            second.let_threads_stay()
        first.wait_until(lambda status: status.get(metrics.UPDATES, 0) > 5, 60.0)

    assert at_first == 0


def play(client: SlotsClient) -> None:
    slots, values = list(range(8)), np.zeros((8, 4), np.float32)
    given = Observations(slots, values, [0.0] * 8, is_first=[True] * 8)
    with contextlib.suppress(StoppedError):
        while True:
            client.act(given)
            given = Observations(slots, values, [1.0] * 8)


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
