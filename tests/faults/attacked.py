"""Attacked: a learner server as real processes, with an actor that must be served meanwhile.

Leaving `under_attack` looks at what the attack came to: the front end's memory, what the
log grew by, calls of a bystander with a token, and whether the actor's unrolls still come in.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import grpc
import numpy as np
import psutil
from commands import Command, newest_metric
from faults.row_figures import record

from impala_common.errors import LearnerUnavailableError
from impala_common.rpc.channel import make_channel
from impala_common.rpc.errors import error_from
from impala_common.rpc.security import ClientSecurity
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory
from impala_rl.v1 import learner_pb2, learner_pb2_grpc

TOKEN = "a5" * 32
BEARER = ((b"authorization", b"Bearer " + TOKEN.encode()),)
SERVICE = "/impala_rl.v1.LearnerService/"
MIB = 2.0**20
_WAIT_S = 60.0
_PROBE_S = 0.05
_CALL_TIMEOUT_S = 20.0
_TRY_S = 5.0


class Attack:
    """What is known of one attack, for its test to add to.

    Attributes:
      figures: for the row of the table.
      log: lines the server wrote meanwhile, once it is over.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float | int | str] = {}
        self.log: list[str] = []


class Attacked:
    """See the module.

    Attributes:
      service: path of its methods, up to the last slash.
      methods: two names of its methods; the last one is of a stream.
      address: HOST:PORT of the data plane.
      run: the run's folder.
      security: what a client with the actor token passes to `make_channel`.
    """

    service = SERVICE
    methods: tuple[str, ...] = ("GetConfig", "Register", "GetWeights", "PushUnrolls")

    def __init__(self, path: Path) -> None:
        token = path / "actor.token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        self.run = RunDirectory(path / "run")
        self.security = ClientSecurity(token_file=str(token))
        self.address = ""
        self._path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Attacked:
        token = self.security.token_file
        with self._stack:
            self._server = self._stack.enter_context(
                Command(
                    self._path, "impala-server", "--env", "CartPole-v1", "--port", "0",
                    "--run-dir", "run", "--total-steps", "1000000000", "--log-interval-s", "0.2",
                    "--hidden-sizes", "256", "256", "--unroll-length", "16", "--batch-size", "8",
                    "--actor-token-file", token, "--log-format", "json",
                )
            )  # fmt: skip
            self._server.wait_until(self.run.address_path.exists, "address", _WAIT_S)
            self.address = self.run.address_path.read_text().strip()
            self._stack.enter_context(
                Command(
                    self._path, "impala-actor", "--server", self.address, "--env", "CartPole-v1",
                    "--token-file", token, "--actor-id", "legit", "--num-envs", "4",
                    "--env-backend", "sync",
                )
            )  # fmt: skip
            self._server.wait_until(self.accepted, "unrolls", _WAIT_S)
            (self._front_end,) = self._server.children("impala_server.front_end")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def probe(self, channel: grpc.Channel, timeout_s: float) -> None:
        """Makes a call that everybody with a token may make."""
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        stub.GetConfig(learner_pb2.GetConfigRequest(), timeout=timeout_s, wait_for_ready=True)

    def accepted(self) -> float:
        """Returns how many of the actor's unrolls have been accepted."""
        return newest_metric(self.run.path, metrics.UNROLLS_ACCEPTED)

    def rss_mib(self) -> float:
        """Returns the resident memory of the front end."""
        return float(self._front_end.memory_info().rss) / MIB

    def num_descriptors(self) -> int:
        """Returns the open files of the front end."""
        return int(self._front_end.num_fds())

    def log_lines(self) -> list[str]:
        """Returns all lines the server wrote so far."""
        return self._server.err.splitlines()

    def channel(self) -> grpc.Channel:
        """Returns a channel with the actor token."""
        return make_channel(self.address, self.security)

    @contextlib.contextmanager
    def under_attack(self, row: int, max_rss_mib: float) -> Iterator[Attack]:
        """A context to attack in; fails where somebody else suffered for it.

        Args:
          row: of the fault table.
          max_rss_mib: bound of what the front end's memory may grow by, at its peak.
        """
        attack = Attack()
        num_lines = len(self.log_lines())
        accepted, rss_mib, start_s = self.accepted(), self.rss_mib(), time.monotonic()
        with Bystander(self) as bystander:
            yield attack
            seconds = time.monotonic() - start_s
            was = self.accepted()
            self._server.wait_until(lambda: self.accepted() > was, "unrolls after it", _WAIT_S)
        grown_mib = max(bystander.peak_rss_mib, self.rss_mib()) - rss_mib
        attack.log = self.log_lines()[num_lines:]
        assert bystander.failures == [], f"somebody else was not served: {bystander.failures[:3]}"
        assert grown_mib <= max_rss_mib, f"the front end grew by {grown_mib:.0f} MiB"
        for line in attack.log:
            json.loads(line)
        times_ms = 1e3 * np.array(bystander.times_s)
        attack.figures |= {
            "seconds": seconds,
            "rss_mib": grown_mib,
            "rss_bound_mib": max_rss_mib,
            "log_lines": len(attack.log),
            "log_bytes": sum(len(line) + 1 for line in attack.log),
            "bystander_calls": len(times_ms),
            "bystander_p50_ms": float(np.median(times_ms)),
            "bystander_p99_ms": float(np.quantile(times_ms, 0.99)),
            "unrolls_per_s": (was - accepted) / seconds,
        }
        record(row, **attack.figures)


class Bystander:
    """Makes calls all the time, on a thread, and watches the front end's memory.

    Attributes:
      times_s: of the calls that were answered.
      failures: what the others ended with.
      peak_rss_mib: most that was seen.
    """

    def __init__(self, attacked: Attacked) -> None:
        self.times_s: list[float] = []
        self.failures: list[str] = []
        self.peak_rss_mib = 0.0
        self._attacked = attacked
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-bystander")

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join(2 * _CALL_TIMEOUT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with self._attacked.channel() as channel:
            while True:
                start_s = time.monotonic()
                try:
                    ask_until_answered(self._attacked, channel)
                    self.times_s.append(time.monotonic() - start_s)
                except grpc.RpcError as error:
                    self.failures.append(str(error))
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.peak_rss_mib = max(self.peak_rss_mib, self._attacked.rss_mib())
                if self._stop.wait(_PROBE_S):
                    return


def ask_until_answered(attacked: Attacked, channel: grpc.Channel) -> None:
    """Calls `probe`, again where the product's clients would, for 20 s in all.

    An attack may cost somebody else a try, never more.
    """
    deadline_s = time.monotonic() + _CALL_TIMEOUT_S
    while True:
        try:
            attacked.probe(channel, _TRY_S)
        except grpc.RpcError as error:
            is_transient = isinstance(error_from(error), LearnerUnavailableError)
            if not is_transient or time.monotonic() > deadline_s:
                raise
        else:
            return
