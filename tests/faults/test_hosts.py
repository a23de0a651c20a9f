"""A server without file descriptors, and one without CPU time (docs/faults.md, 26, 30)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import pytest
from admin_peer import Admin
from commands import Command, newest_metric
from faults.proxy import FaultProxy
from faults.row_figures import full_only, record
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raw_http2 import RawClient

from impala_actor.admin.admin_client import find_address
from impala_common.rpc.addresses import port_of
from impala_common.rpc.channel import make_channel
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory
from impala_rl.v1 import learner_pb2, learner_pb2_grpc

pytestmark = pytest.mark.timeout(300)

NUM_FILES = 64
WAIT_S = 60.0
CALL_TIMEOUT_S = 5.0
_T = TypeVar("_T")


@contextlib.contextmanager
def serving(path: Path, *prefix: str) -> Iterator[tuple[Command, RunDirectory, str]]:
    """A learner server as a real process, started through `prefix`; its run and address."""
    run = RunDirectory(path / "run")
    options = ["--env", "CartPole-v1", "--port", "0", "--run-dir", "run", "--hidden-sizes", "32"]
    options += ["--total-steps", "1000000000", "--log-interval-s", "0.2", "--no-tensorboard"]
    options += ["--unroll-length", "16", "--batch-size", "8", "--quiet", "--learner-threads", "1"]
    with Command(path, "impala-server", *options, prefix=prefix) as server:
        server.wait_until(run.address_path.exists, "address", WAIT_S)
        yield server, run, run.address_path.read_text().strip()


def acting(path: Path, address: str) -> Command:
    options = ["--server", address, "--env", "CartPole-v1", "--num-envs", "4"]
    return Command(path, "impala-actor", *options, "--actor-id", "legit")


def test_server_without_descriptors_keeps_its_actors_and_says_what_to_raise(
    tmp_path: Path,
) -> None:
    """With `ulimit -n 64`, hard and soft, an administrator can still connect (26).

    Seen to fail, at the administrator, with a limit of connections that looks at no descriptors.
    """
    number, taken = 150, 0
    few = ("sh", "-c", f'ulimit -n {NUM_FILES} && exec "$@"', "sh")
    with serving(tmp_path, *few) as (server, run, address), acting(tmp_path, address) as actor:

        def wait_for_unrolls() -> None:
            was = newest_metric(run.path, metrics.UNROLLS_ACCEPTED)
            server.wait_until(
                lambda: newest_metric(run.path, metrics.UNROLLS_ACCEPTED) > was, "unrolls", WAIT_S
            )

        wait_for_unrolls()
        (front_end,) = server.children("impala_server.front_end")
        with contextlib.ExitStack() as clients:
            for _ in range(number):
                with contextlib.suppress(OSError):
                    client = clients.enter_context(RawClient(address, timeout_s=0.3))
                    taken += client.wait_for_settings()
            num_files = front_end.num_fds()
            with contextlib.closing(admin_of(run)) as admin:
                assert admin.status()["state"] == "RUNNING"
            wait_for_unrolls()
        start_s = time.monotonic()
        with make_channel(address) as channel:
            stub = learner_pb2_grpc.LearnerServiceStub(channel)
            stub.GetConfig(learner_pb2.GetConfigRequest(), timeout=20.0, wait_for_ready=True)
        recovery_s = time.monotonic() - start_s
        wait_for_unrolls()

        assert 0 < taken < number
        assert "raise the limit" in server.err
        assert "waiting for the learner" not in actor.err, "it lost its session"
        record(
            26,
            connections=number,
            taken=taken,
            descriptors=num_files,
            sessions_lost=0,
            recovery_s=recovery_s,
        )


@full_only
def test_starved_server_forgets_no_session_and_answers_health_and_admin(tmp_path: Path) -> None:
    """Two busy processes for each core, and the server at the lowest priority (30).

    Seen to fail with a learner that counts as hung after 0.3 s of silence.
    """
    times_s: dict[str, list[float]] = {"health": [], "admin": []}
    with contextlib.ExitStack() as stack:
        server, run, address = stack.enter_context(serving(tmp_path, "nice", "-n", "19"))
        proxy = stack.enter_context(FaultProxy(port_of(address)))
        actor = stack.enter_context(acting(tmp_path, f"127.0.0.1:{proxy.port}"))
        health = health_pb2_grpc.HealthStub(stack.enter_context(grpc.insecure_channel(address)))
        admin = stack.enter_context(contextlib.closing(admin_of(run)))
        server.wait_until(lambda: newest_metric(run.path, metrics.UPDATES), "updates", WAIT_S)
        before = newest_metric(run.path, metrics.UPDATES)
        connections = proxy.num_connections
        num_loops = 2 * (os.cpu_count() or 1)
        with busy_loops(num_loops):
            end_s = time.monotonic() + 30.0
            while time.monotonic() < end_s:
                request = health_pb2.HealthCheckRequest(service="learning")
                answer = timed(
                    lambda: health.Check(request, timeout=CALL_TIMEOUT_S),  # noqa: B023
                    times_s["health"],
                )
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                (one,) = timed(lambda: admin.ask("ListActors"), times_s["admin"])["actors"]
                assert (one["is_connected"], one["session_epoch"]) == (True, 1)
                time.sleep(0.02)
            server.wait_until(
                lambda: newest_metric(run.path, metrics.UPDATES) > before, "updates", WAIT_S
            )
        reconnects = proxy.num_connections - connections
        assert "waiting for the learner" not in actor.err
    p99 = {f"{name}_p99_ms": 1e3 * float(np.quantile(t, 0.99)) for name, t in times_s.items()}
    record(30, busy_loops=num_loops, calls=len(times_s["admin"]), false_expiries=reconnects, **p99)
    assert reconnects == 0


def admin_of(run: RunDirectory) -> Admin:
    return Admin(find_address(run.path, ""), timeout_s=CALL_TIMEOUT_S)


def timed(call: Callable[[], _T], times_s: list[float]) -> _T:
    start_s = time.monotonic()
    answer = call()
    times_s.append(time.monotonic() - start_s)
    return answer


@contextlib.contextmanager
def busy_loops(number: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
