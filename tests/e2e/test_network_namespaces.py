"""Actors on other machines: three hosts as network namespaces, TLS and tokens, names, a lost cable.

Skipped, saying so, where namespaces cannot be made (not root, no iproute2).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, newest_metric
from namespaces import Hosts, why_not

from impala_actor.admin.certs_command import make_certificates
from impala_common.process.exit_codes import NO_PERMISSION, OK
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

LOST_S = 12.0
BACK_S = 15.0


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    with Hosts("learner", "left", "right") as made:
        yield made


def test_actors_on_two_hosts_train_through_tls_and_one_comes_back(
    hosts: Hosts, tmp_path: Path, record_property: Any
) -> None:
    """By name, with TLS and token; a stranger is refused; a host is unplugged and plugged in.

    Planted: all keepalive options taken from both ends (the lost host stays "connected").
    """
    certs, run = tmp_path / "certs", RunDirectory(tmp_path / "run")
    learner_name = hosts.name_of("learner")
    make_certificates(certs, [learner_name])
    served = ["--host", "0.0.0.0", "--port", "50051", "--run-dir", str(run.path)]
    served += ["--env", "CartPole-v1", "--total-steps", "1000000000", "--quiet"]
    served += ["--log-interval-s", "0.2"]
    served += ["--tls-cert", str(certs / "server.crt"), "--tls-key", str(certs / "server.key")]
    served += ["--actor-token-file", str(certs / "actor.token")]
    join = ["--server", f"{learner_name}:50051", "--env", "CartPole-v1", "--num-envs", "2"]
    join += ["--ca-file", str(certs / "ca.crt")]
    token = ["--token-file", str(certs / "actor.token")]

    def actor(host: str, *options: str) -> Command:
        return Command(tmp_path, "impala-actor", *join, *options, prefix=hosts.prefix(host))

    def connected() -> float:
        return newest_metric(run.path, metrics.ACTORS_CONNECTED)

    def steps() -> float:
        return newest_metric(run.path, metrics.STEPS)

    with (
        actor("left", *token, "--actor-id", "left") as left,
        actor("right", *token, "--actor-id", "right") as right,
        Command(tmp_path, "impala-server", *served, prefix=hosts.prefix("learner")) as server,
    ):
        server.wait_until(lambda: connected() == 2, "second actor", 60.0)
        before = steps()
        server.wait_until(lambda: steps() > before, "training with both")
        with actor("left") as stranger:
            assert stranger.wait() == NO_PERMISSION
            assert "pass --token-file" in stranger.err

        hosts.unplug("right")
        start_s = time.monotonic()
        server.wait_until(lambda: connected() == 1, "loss of a host", LOST_S)
        record_property("lost_s", round(time.monotonic() - start_s, 1))
        before = steps()
        server.wait_until(lambda: steps() > before, "training with one")

        hosts.plug("right")
        start_s = time.monotonic()
        server.wait_until(lambda: connected() == 2, "return of the host", BACK_S)
        record_property("back_s", round(time.monotonic() - start_s, 1))
        before = steps()
        server.wait_until(lambda: steps() > before, "training with both again")
        assert (left.process.poll(), right.process.poll()) == (None, None), "never restarted"

        server.interrupt(signal.SIGTERM)
        assert server.wait() == OK, server.err
        last = CheckpointStore(run.checkpoints_path).load_newest()
        assert last.step >= before
