"""Learner ranks on two hosts under torchrun: hosts are network namespaces, joined by a bridge.

Skipped, saying so, where namespaces cannot be made (not root, no iproute2).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from commands import FOR_EVER, Command, newest_metric
from namespaces import Hosts, why_not

from impala_actor import admin_cli
from impala_actor.admin.certs_command import make_certificates
from impala_common.process.exit_codes import OK
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(500)]

START_S = 200.0
TORCHRUN_S = 60.0
"""torchrun ends after its ranks, and looks for other hosts before."""
PARTITION_S = 60.0
"""A meeting counts as missed after 12 s (rank_timeout_s); the rest is for a busy machine."""
LOST = "learner rank has not answered"
_INTERFACES = {"one": "bridge0", "two": "eth0"}


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    with Hosts("one", "two") as made:
        yield made


class Torchrun:
    """torchrun with one rank on each host, and an actor on each host that knows host one alone."""

    def __init__(self, hosts: Hosts, path: Path, total_steps: str) -> None:
        names = [hosts.name_of(host) for host in _INTERFACES]
        certs = path / "certs"
        make_certificates(certs, names)
        self.run = RunDirectory(path / "run")
        self._path, self._hosts = path, hosts
        learner = ["--env", "CartPole-v1", "--run-dir", str(self.run.path), "--port", "50051"]
        learner += ["--total-steps", total_steps, "--device", "cpu", "--log-interval-s", "0.2"]
        learner += ["--tls-cert", str(certs / "server.crt"), "--tls-key", str(certs / "server.key")]
        learner += ["--actor-token-file", str(certs / "actor.token"), "--host", "0.0.0.0"]
        learner += ["--admin-token-file", str(certs / "admin.token")]
        self.processes = {
            host: self._start(host, number, learner) for number, host in enumerate(_INTERFACES, 1)
        }
        join = ["--server", f"{names[0]}:50051", "--env", "CartPole-v1"]
        join += ["--ca-file", str(certs / "ca.crt"), "--token-file", str(certs / "actor.token")]
        self.actors = [
            Command(path, "impala-actor", *join, "--actor-id", host, prefix=hosts.prefix(host))
            for host in _INTERFACES
        ]
        self.admin = ["--run", str(self.run.path), "--token-file", str(certs / "admin.token")]

    def _start(self, host: str, number: int, learner: list[str]) -> subprocess.Popen[bytes]:
        command = [*self._hosts.prefix(host), sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "hosts"]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29400"]
        # Both hosts have this machine's name, which they cannot look up.
        command += ["--rdzv-conf", f"is_host={host == 'one'}", "--local-addr", f"10.77.0.{number}"]
        command += ["-m", "impala_server", *learner]
        command += ["--rank-host", self._hosts.name_of(host)]
        with (self._path / f"{host}.err").open("wb") as err:
            return subprocess.Popen(
                command,
                cwd=self._path,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
                start_new_session=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "GLOO_SOCKET_IFNAME": _INTERFACES[host],
                    "TP_SOCKET_IFNAME": _INTERFACES[host],
                },
            )

    def __enter__(self) -> Torchrun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in self.actors:
            actor.__exit__(kind, error, trace)
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10.0)  # its ranks end with the namespace

    def error(self, host: str) -> str:
        return (self._path / f"{host}.err").read_text(errors="replace")

    def wait_for_updates(self, least: int) -> None:
        """Waits until both ranks have made some together."""
        deadline_s = time.monotonic() + START_S
        while newest_metric(self.run.path, metrics.UPDATES) < least:
            for host, process in self.processes.items():
                with pytest.raises(subprocess.TimeoutExpired):
                    pytest.fail(f"{host} ended with {process.wait(0.1)}: {self.error(host)}")
            assert time.monotonic() < deadline_s, self.error("one")


def test_torchrun_on_two_hosts_trains_one_network_and_drains_in_order(
    hosts: Hosts, tmp_path: Path
) -> None:
    with Torchrun(hosts, tmp_path, FOR_EVER) as torchrun:
        torchrun.wait_for_updates(20)

        assert admin_cli.run([*torchrun.admin, "drain"]) == OK
        assert admin_cli.run([*torchrun.admin, "shutdown"]) == OK
        for host, process in torchrun.processes.items():
            assert process.wait(TORCHRUN_S) == OK, torchrun.error(host)

    lines = metrics.read_metrics(torchrun.run.metrics_path)
    for rank in (0, 1):  # of an interval; of the last one, in which they drain, it is 0
        name = metrics.rank_metric(rank, "steps")
        assert max(line.get(name) or 0 for line in lines) > 0
    assert CheckpointStore(torchrun.run.checkpoints_path).load_newest().step > 0


def test_partition_between_two_hosts_ends_both_ranks_with_a_reason(
    hosts: Hosts, tmp_path: Path
) -> None:
    """Each says whom it missed, though one cannot reach the store that reasons are left in."""
    with Torchrun(hosts, tmp_path, FOR_EVER) as torchrun:
        torchrun.wait_for_updates(20)
        start_s = time.monotonic()
        hosts.unplug("two")

        for host in torchrun.processes:
            while LOST not in torchrun.error(host):
                assert time.monotonic() - start_s < PARTITION_S, torchrun.error(host)
                time.sleep(0.1)
