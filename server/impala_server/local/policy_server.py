"""The policy server that impala-train and impala-server start beside the learner.

An ordinary `impala-policy-server` command that talks gRPC to the learner; nothing of it is
imported. It is replaced when it dies, on the same port. Owned by the command's main thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import tempfile
from pathlib import Path

from impala_common.config import TrainConfig
from impala_common.config.checks import is_own_model, require
from impala_common.errors import AddressInUseError
from impala_common.process.own_modules import python_command
from impala_common.rpc.addresses import UNIX, join_address, port_of
from impala_common.run.run_directory import RunDirectory
from impala_server.local.process import EXIT_WITH_PARENT, MAX_QUICK_DEATHS, LocalProcess
from impala_server.local.security import local_address, local_client_security

_MAX_SOCKET_PATH_BYTES = 100  # Linux has room for 107, others for 103


def require_policy_port(config: TrainConfig) -> None:
    """Finds out before anything starts whether the policy server's port can be opened.

    Raises:
      ConfigError: it is the learner's.
      AddressInUseError: it is taken.
    """
    host, port = config.transport.host, config.policy_server.policy_port
    if port <= 0:
        return
    require(
        "--policy-port",
        port,
        port != config.transport.port,
        "another port than the learner's",
        "the policy server is a process of its own",
    )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise AddressInUseError(
            f"the policy server cannot listen on {join_address(host, port)}: "
            f"{error.strerror or error}; pass another --policy-port"
        ) from error


class LocalPolicyServer:
    """One policy server.

    Attributes:
      address: HOST:PORT that thin actors connect to; None before its port is open.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory, learner: str) -> None:
        """Prepares a policy server for the learner at `learner`."""
        self._config = config
        self._run = run
        self._learner = learner
        port = max(0, config.policy_server.policy_port)
        self._socket_folder: str | None = None
        self._process = LocalProcess(
            "policy-server", self._command(port), run.log_path / "policy-server.log"
        )
        self.address: str | None = None

    def start(self) -> None:
        """Starts it; ConfigError: the run's folder cannot be written to."""
        with self._run.written():
            self._run.policy_address_path.unlink(missing_ok=True)
        self._process.start()

    def check(self) -> None:
        """Replaces it if it died; finds out its address.

        Raises:
          ImpalaError: it cannot work, for instance because its port is taken.
        """
        if self.address is None and self._run.policy_address_path.exists():
            self.address = self._run.policy_address_path.read_text(encoding="utf-8").strip()
            # Clients know this port: a server that comes in its place has to have it, too.
            self._process.command = self._command(port_of(self.address))
        self._process.check(1 if self.address is None else MAX_QUICK_DEATHS)

    def wait(self, timeout_s: float) -> None:
        """Waits for its end, at most `timeout_s`."""
        self._process.wait(timeout_s)

    def terminate(self) -> None:
        """Tells it to drain its clients and to end."""
        self._process.terminate()

    def join(self, timeout_s: float) -> None:
        """Waits for its end; kills it when time is up."""
        self._process.join(timeout_s)
        with contextlib.suppress(OSError):
            self._run.policy_address_path.unlink(missing_ok=True)
            self._run.policy_admin_address_path.unlink(missing_ok=True)
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _command(self, port: int) -> list[str]:
        config, run = self._config, self._run.path.absolute()
        serving, transport, security = config.policy_server, config.transport, config.security
        command = [*python_command("impala_policy_server"), "--actor-id", "policy-server"]
        command += ["--learner", local_address(self._learner), EXIT_WITH_PARENT]
        command += ["--host", transport.host, "--port", str(port)]
        command += ["--address-file", str(run / self._run.policy_address_path.name)]
        command += self._admin_options(run)
        if serving.policy_prometheus_port:
            command += ["--prometheus-port", str(serving.policy_prometheus_port)]
            command += ["--prometheus-host", config.checkpoint.prometheus_host]
        command += ["--inference-backend", config.job.inference_backend]
        command += ["--max-batch-wait-ms", str(serving.policy_batch_wait_ms)]
        command += ["--slot-timeout-s", str(serving.policy_slot_timeout_s)]
        command += ["--log-format", "text", "--verbose"]  # files in logs/ are read by people
        if is_own_model(config.model.model):
            command += ["--model", config.model.model]
        for name in ("tls_cert", "tls_key", "tls_client_ca", "actor_token_file"):
            value = getattr(security, name)
            command += [f"--{name.replace('_', '-')}", value] if value else []
        if transport.allow_insecure_public_bind_without_tls:
            command += ["--allow-insecure-public-bind-without-tls"]
        client = local_client_security(security, self._learner)
        for name, value in dataclasses.asdict(client).items():
            command += [f"--{name.replace('_', '-')}", value] if value else []
        return command

    def _admin_options(self, run: Path) -> list[str]:
        """Returns where administrators find it: at a Unix socket in the run's folder."""
        config = self._config
        if config.admin.admin_address == "none":
            return []
        path = run / "policy_admin.sock"
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
            if self._socket_folder is None:
                self._socket_folder = tempfile.mkdtemp(prefix="impala-policy-")  # mode 0700
            path = Path(self._socket_folder) / "admin.sock"
        options = ["--admin-address", f"{UNIX}{path}"]
        options += ["--admin-address-file", str(run / self._run.policy_admin_address_path.name)]
        options += ["--audit-file", str(run / self._run.policy_audit_path.name)]
        token = config.security.admin_token_file
        return options + (["--admin-token-file", token] if token else [])
