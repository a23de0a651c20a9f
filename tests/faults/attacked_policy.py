"""AttackedPolicy: a policy server as a process, with a thin actor that must be served meanwhile.

As `Attacked`, whose attacks run on it, too: its port has the same guards.
"""

from __future__ import annotations

import grpc
import psutil
from commands import Command
from faults.attacked import MIB, Attacked
from grpc_health.v1 import health_pb2, health_pb2_grpc

_WAIT_S = 60.0


class AttackedPolicy(Attacked):
    """See the module; `address` is that of the policy server."""

    service = "/impala_rl.v1.PolicyService/"
    methods = ("Play",)

    def __enter__(self) -> AttackedPolicy:
        token = self.security.token_file
        with self._stack:
            learner = self._stack.enter_context(
                Command(
                    self._path, "impala-server", "--env", "CartPole-v1", "--port", "0",
                    "--run-dir", "run", "--total-steps", "1000000000", "--log-interval-s", "0.2",
                    "--unroll-length", "16", "--batch-size", "8", "--actor-token-file", token,
                )
            )  # fmt: skip
            learner.wait_until(self.run.address_path.exists, "address", _WAIT_S)
            address = self._path / "policy_address"
            self._server = self._stack.enter_context(
                Command(
                    self._path, "impala-policy-server", "--port", "0", "--token-file", token,
                    "--learner", self.run.address_path.read_text().strip(),
                    "--actor-token-file", token, "--address-file", str(address),
                    "--log-format", "json", "--slot-timeout-s", "600", "--max-clients", "256",
                )
            )  # fmt: skip
            self._server.wait_until(address.exists, "address", _WAIT_S)
            self.address = address.read_text().strip()
            self._stack.enter_context(
                Command(
                    self._path, "impala-thin-actor", "--server", self.address, "--slots", "4",
                    "--env", "CartPole-v1", "--token-file", token, "--client-id", "legit",
                )
            )  # fmt: skip
            self._server.wait_until(self.accepted, "unrolls", _WAIT_S)
            self._process = psutil.Process(self._server.process.pid)
            self._stack = self._stack.pop_all()
        return self

    def probe(self, channel: grpc.Channel, timeout_s: float) -> None:
        """Asks for its health."""
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True)

    def rss_mib(self) -> float:
        """Returns the resident memory of the policy server."""
        return float(self._process.memory_info().rss) / MIB

    def num_descriptors(self) -> int:
        """Returns its open files."""
        return int(self._process.num_fds())
