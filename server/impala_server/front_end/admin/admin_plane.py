"""The admin service's own listener: a Unix socket in the run's folder, or a loopback port.

A gRPC server of its own on the front end's event loop, so that it answers while
the data plane's connections are full. RUN/admin_address holds its address while it runs. If the
path is too long for a socket, or the disk has no sockets, the socket is in a temporary folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

import grpc

from impala_common.errors import AddressInUseError, ConfigError
from impala_common.rpc.addresses import UNIX, host_of, port_of
from impala_common.rpc.channel import server_options
from impala_common.run.run_directory import write_text_atomic
from impala_rl.v1 import admin_pb2_grpc
from impala_server.front_end.admin.admin_journal import AdminJournal
from impala_server.front_end.admin.admin_servicer import AdminServicer
from impala_server.front_end.admin.audit_log import AuditLog
from impala_server.front_end.listener.auth_interceptor import make_interceptor
from impala_server.front_end.listener.credentials import bind
from impala_server.front_end.listener.debug_services import add_debug_services
from impala_server.front_end.listener.listener import Listener
from impala_server.front_end.listener.path_guard import make_guarded_server
from impala_server.front_end.listener.request_guard import RequestGuard
from impala_server.front_end.monitoring.health import ADMIN_SERVICE, add_health
from impala_server.front_end.monitoring.server_facts import ServerFacts

_LOG = logging.getLogger(__name__)
_MAX_SOCKET_PATH_BYTES = 100  # Linux has room for 107, others for 103
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_CALLS = 128
_GRACE_S = 1.0


class AdminPlane:
    """Starts and stops the listener."""

    def __init__(
        self, facts: ServerFacts, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> None:
        """Prepares to serve the learner of `facts`; `start` opens the listener.

        Args:
          facts: the server.
          interceptors: run before the interceptor that checks tokens.
        """
        self._facts = facts
        self._interceptors = interceptors
        self._listener: Listener | None = None
        self._folder: str | None = None
        self._socket: Path | None = None
        self.address = ""

    async def start(self) -> None:
        """Opens the listener and writes its address; does nothing where it is turned off.

        Raises:
          AddressInUseError: it cannot be opened.
          ConfigError: a token file cannot be used.
        """
        wanted = self._facts.config.admin.admin_address
        self._facts.run.admin_address_path.unlink(missing_ok=True)
        if wanted == "none":
            return
        try:
            self._listener = self._open_socket() if wanted == "unix" else self._open(wanted)
            self.address = self._listener.address
            await self._listener.start()
            with self._facts.run.written():
                write_text_atomic(self._facts.run.admin_address_path, self.address + "\n")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Closes the listener and removes what it left on disk."""
        if self._listener is not None:
            await self._listener.stop(_GRACE_S)
            self._listener = None
        self._facts.run.admin_address_path.unlink(missing_ok=True)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open_socket(self) -> Listener:
        path = self._facts.run.admin_socket_path.absolute()
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
            _remove_stale(path)
            # A file system without sockets; an error of another kind comes again below.
            with contextlib.suppress(AddressInUseError, ConfigError):
                return self._open_at(path)
        self._folder = tempfile.mkdtemp(prefix="impala-admin-")  # mode 0700
        return self._open_at(Path(self._folder) / "admin.sock")

    def _open_at(self, path: Path) -> Listener:
        opened = self._open(f"{UNIX}{path}")
        self._socket = path
        return opened

    def _open(self, wanted: str) -> Listener:
        config, host = self._facts.config, host_of(wanted)
        options = [(name, value) for name, value in server_options() if "message" not in name]
        options += [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
        guards = [*self._interceptors, make_interceptor(config, host), RequestGuard()]
        who = "admin token" if config.security.admin_token_file else "local user"
        audit = AuditLog(self._facts.run.audit_path)
        servicer = AdminServicer(self._facts, AdminJournal(self._facts, audit, who))

        def build(address: str) -> tuple[grpc.aio.Server, str]:
            server = make_guarded_server(options, guards, _MAX_CALLS)
            admin_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
            add_health(server, self._facts.link)
            add_debug_services(server, host, (ADMIN_SERVICE,))
            return server, bind(server, host, port_of(address or wanted), config)

        return Listener(build)


def _remove_stale(path: Path) -> None:
    """Removes the socket of a killed server; the run's lock proves that no server uses it."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
