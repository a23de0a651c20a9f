"""A policy server whose learner is replaced by one with other settings, with real gRPC."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import free_port
from running_policy_server import RunningPolicyServer
from running_server import RunningServer, make_config, table_of

from impala_common.errors import LearnerUnavailableError, UnauthenticatedError
from impala_common.run import metrics
from impala_policy_server.engine_settings import EngineSettings
from impala_policy_server.learner_source import LearnerSource
from impala_thin import Environment, Observations, ServerUnavailableError, SlotsClient

CARTPOLE = Environment.simple((4,), num_actions=2)
TIMEOUT_S = 60.0


def first(num: int) -> Observations:
    zeros = np.zeros((num, 4), np.float32)
    return Observations(list(range(num)), zeros, [0.0] * num, is_first=[True] * num)


def further(num: int) -> Observations:
    return Observations(list(range(num)), np.zeros((num, 4), np.float32), [1.0] * num)


def play_until(client: SlotsClient, stop: threading.Event) -> None:
    while not stop.is_set():
        client.act(further(client.num_slots))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(
            {
                "rollout": {
                    "unroll_length": 5,
                    "batch_size": 8,
                    "num_storages": 16,
                    "num_learners": 1,
                }
            },
            marks=pytest.mark.extended,
        ),
        {"model": {"model": "mlp", "hidden_sizes": (24,), "hidden_dim": 16}},
        {"model": {"model": "mlp", "hidden_sizes": (16,), "hidden_dim": 16, "recurrence": "lstm"}},
    ],
    ids=["unroll-length", "network", "memory"],
)
def test_learner_with_other_settings_is_trained_by_the_slots_there_are(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Another run on the port of the one before: an ordinary actor goes on with it, too.

    Seen to fail where the network and the unrolls of the first session were used for all.
    """
    port = free_port()
    old = make_config(transport={"port": port})
    new = make_config(transport={"port": port}, **changed)
    with (
        RunningServer(tmp_path / "old", old) as server,
        RunningPolicyServer(server.address) as policy,
        policy.client(CARTPOLE, 8, wants_logits=True) as client,
    ):
        client.act(first(8))
        for _ in range(20):
            client.act(further(8))
        server.stop()
        server.let_threads_stay()
        server.__exit__(None, None, None)
        with RunningServer(tmp_path / "new", new) as again:
            again.let_threads_stay()
            stop = threading.Event()
            player = threading.Thread(target=play_until, args=(client, stop))
            player.start()
            try:
                again.wait_until(lambda status: status.get(metrics.UPDATES, 0) >= 3, TIMEOUT_S)
            finally:
                stop.set()
                player.join(20.0)
            assert not player.is_alive()
            assert policy.source._engine.counts.lost == 0
            table = table_of(again.supervisor.status)
            assert table.get(metrics.UPDATES, 0) >= 3
            policy.stop()


def unreachable(connect_timeout_s: float) -> LearnerSource:
    return LearnerSource(
        f"127.0.0.1:{free_port()}",
        "policy",
        EngineSettings(max_slots=8, inference_backend="eager"),
        connect_timeout_s=connect_timeout_s,
    )


def test_server_ends_if_it_never_reaches_its_learner_in_time() -> None:
    """Seen to fail: with --connect-timeout-s the server tried anew at each client's hello."""
    with RunningPolicyServer(make_source=lambda: unreachable(1.0)) as policy:
        with (
            policy.client(CARTPOLE, connect_timeout_s=3.0) as client,
            pytest.raises(ServerUnavailableError),
        ):
            client.act(first(1))
        policy.join()
        assert isinstance(policy.error, LearnerUnavailableError)
        policy.error = None


def test_servers_own_missing_token_ends_the_server_and_refuses_no_client(tmp_path: Path) -> None:
    """Seen to fail: the client was told UNAUTHENTICATED, of a token that it does not have."""
    token = tmp_path / "token"
    token.write_text("a" * 64 + "\n")
    token.chmod(0o600)
    config = make_config(security={"actor_token_file": str(token)})
    with (
        RunningServer(tmp_path / "run", config) as server,
        RunningPolicyServer(server.address) as policy,
    ):
        with (
            policy.client(CARTPOLE, connect_timeout_s=3.0) as client,
            pytest.raises(ServerUnavailableError),
        ):
            client.act(first(1))
        policy.join()
        assert isinstance(policy.error, UnauthenticatedError)
        policy.error = None


def test_client_is_not_refused_for_the_environment_of_one_before_no_learner_has_seen() -> None:
    """Seen to fail with SPEC_MISMATCH, against the environment of a client that was gone."""
    with RunningPolicyServer(make_source=lambda: unreachable(0.0)) as policy:
        other = Environment.simple((3,), num_actions=2)
        given = Observations([0], np.zeros((1, 3), np.float32), [0.0], is_first=[True])
        for environment, observations in ((other, given), (CARTPOLE, first(1))):
            with policy.client(environment, connect_timeout_s=0.5) as client:
                leaving = threading.Timer(1.0, client.break_stream)
                leaving.start()
                with pytest.raises(ServerUnavailableError):
                    client.act(observations)
                leaving.join()
