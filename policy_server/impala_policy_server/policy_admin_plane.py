"""The policy server's admin listener: a Unix socket, or a port of this machine.

A gRPC server of its own on the event loop, as the learner's `AdminPlane`: it answers while the
clients' port is full.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import stat
from pathlib import Path

import grpc

from impala_common.config import TrainConfig
from impala_common.errors import AddressInUseError
from impala_common.rpc.addresses import UNIX, host_of, is_unix, port_of
from impala_common.rpc.channel import server_options
from impala_common.run.run_directory import reading, write_named_file
from impala_policy_server.dispatcher import Dispatcher
from impala_policy_server.policy_admin import POLICY_ADMIN_SERVICE, PolicyAdminServicer
from impala_policy_server.policy_health import add_policy_health
from impala_rl.v1 import policy_admin_pb2_grpc
from impala_server.front_end.admin.audit_log import AuditLog
from impala_server.front_end.listener.auth_interceptor import make_interceptor
from impala_server.front_end.listener.credentials import bind
from impala_server.front_end.listener.debug_services import add_debug_services
from impala_server.front_end.listener.listener import Listener
from impala_server.front_end.listener.path_guard import make_guarded_server
from impala_server.front_end.listener.request_guard import RequestGuard

_MAX_MESSAGE_BYTES = 1 << 20
_MAX_CALLS = 128
_GRACE_S = 1.0
_PROBE_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdminSettings:
    """Where administrators find the policy server.

    Attributes:
      address: unix:PATH or HOST:PORT; "" for nowhere.
      address_file: file that the address is written to; None: none.
      audit_file: file that changes are written to; None: none.
    """

    address: str = ""
    address_file: Path | None = None
    audit_file: Path | None = None


class PolicyAdminPlane:
    """Starts and stops the listener.

    Attributes:
      address: where it listens; "" before, and where it is turned off.
    """

    def __init__(
        self,
        settings: AdminSettings,
        listening: TrainConfig,
        dispatcher: Dispatcher,
        interceptors: tuple[grpc.aio.ServerInterceptor, ...] = (),
    ) -> None:
        """Prepares.

        Args:
          settings: where.
          listening: section security has the admin token and TLS.
          dispatcher: whose clients are shown.
          interceptors: run before the one that checks tokens.
        """
        self._settings = settings
        self._config = listening
        self._dispatcher = dispatcher
        self._interceptors = interceptors
        self._listener: Listener | None = None
        self.address = ""

    async def start(self) -> None:
        """Opens the listener, if one is wanted, and writes its address.

        Raises:
          AddressInUseError: it cannot be opened.
          ConfigError: a token file cannot be used, or the place of the socket or address file.
        """
        settings = self._settings
        if not settings.address:
            return
        if is_unix(settings.address):
            _remove_stale(Path(settings.address.removeprefix(UNIX)))
        self._listener = self._open(settings.address)
        self.address = self._listener.address
        await self._listener.start()
        if settings.address_file is not None:
            write_named_file("--admin-address-file", settings.address_file, self.address + "\n")

    async def stop(self) -> None:
        """Closes the listener and removes what it left on disk."""
        if self._listener is None:
            return
        await self._listener.stop(_GRACE_S)
        self._listener = None
        with contextlib.suppress(OSError):  # what cannot be removed must not hide why it ends
            if self._settings.address_file is not None:
                self._settings.address_file.unlink(missing_ok=True)
            if is_unix(self.address):
                Path(self.address.removeprefix(UNIX)).unlink(missing_ok=True)

    def _open(self, wanted: str) -> Listener:
        config, host = self._config, host_of(wanted)
        options = [(name, value) for name, value in server_options() if "message" not in name]
        options += [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
        guards = [*self._interceptors, make_interceptor(config, host), RequestGuard()]
        who = "admin token" if config.security.admin_token_file else "local user"
        audit = self._settings.audit_file
        servicer = PolicyAdminServicer(
            self._dispatcher, None if audit is None else AuditLog(audit), who
        )

        def build(address: str) -> tuple[grpc.aio.Server, str]:
            server = make_guarded_server(options, guards, _MAX_CALLS)
            policy_admin_pb2_grpc.add_PolicyAdminServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
            add_policy_health(server, self._dispatcher.ended)
            add_debug_services(server, host, (POLICY_ADMIN_SERVICE,))
            return server, bind(server, host, port_of(address or wanted), config)

        return Listener(build)


def _remove_stale(path: Path) -> None:
    """Removes the socket of a policy server that was killed; raises if a living one has it.

    gRPC would take a living server's socket away from it without a word.

    Raises:
      AddressInUseError: somebody accepts connections there.
      ConfigError: it is closed to this user.
    """
    option, rule = "--admin-address", "unix:PATH in a folder of this user"
    with reading(option, path, rule), contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBE_S)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise AddressInUseError(f"another server uses {path}; pass another --admin-address")
