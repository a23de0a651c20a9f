"""Hosts: several machines on one, as network namespaces joined by a bridge.

The first host carries the bridge; each other one is a cable away from it. Needs root and
iproute2. Nothing of the machine's own network is touched; leaving the context removes all of it,
and whatever still runs in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType

_NETNS = Path("/etc/netns")
_TIMEOUT_S = 20.0


def why_not() -> str:
    """Returns why namespaces cannot be made here; empty where they can."""
    if shutil.which("ip") is None:
        return "no iproute2: the command ip is missing"
    if os.geteuid() != 0:
        return "not root: network namespaces cannot be made"
    probe = f"impala-probe-{os.getpid()}"
    made = _ip("netns", "add", probe, check=False)
    if made.returncode != 0:
        return f"no network namespaces here: {made.stderr.strip()}"
    # Entering one gives it a view of /sys and /etc of its own, which needs more than making it.
    entered = _ip("netns", "exec", probe, "true", check=False)
    bridged = _ip("-n", probe, "link", "add", "probe", "type", "bridge", check=False)
    _ip("netns", "del", probe, check=False)
    return "".join(done.stderr.strip() for done in (entered, bridged) if done.returncode != 0)


class Hosts:
    """Hosts by name, with addresses 10.77.0.1, 10.77.0.2 ... in the order of their names."""

    def __init__(self, *names: str, domain: str = "test") -> None:
        self._names = names
        self._domain = domain
        self._tag = f"i{os.getpid() % 100000}"

    def __enter__(self) -> Hosts:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        self._remove()

    def prefix(self, name: str) -> tuple[str, ...]:
        """Returns what to put before a command that is to run on the host."""
        return ("ip", "netns", "exec", self._namespace(name))

    def name_of(self, name: str) -> str:
        """Returns the host's name in the network, HOST.DOMAIN."""
        return f"{name}.{self._domain}"

    def unplug(self, name: str) -> None:
        """Pulls the host's cable."""
        self._bridge_link("set", self._port(name), "down")

    def plug(self, name: str) -> None:
        """Puts it back."""
        self._bridge_link("set", self._port(name), "up")

    def _build(self) -> None:
        entries = ["127.0.0.1 localhost"]
        entries += [
            f"10.77.0.{number} {self.name_of(name)}" for number, name in enumerate(self._names, 1)
        ]
        for name in self._names:
            namespace = self._namespace(name)
            folder = _NETNS / namespace
            folder.mkdir(parents=True)
            (folder / "hosts").write_text("\n".join(entries) + "\n")
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        self._bridge_link("add", "bridge0", "type", "bridge")
        self._bridge_link("set", "bridge0", "up")
        first, *others = self._names
        _ip("-n", self._namespace(first), "address", "add", "10.77.0.1/24", "dev", "bridge0")
        for number, name in enumerate(others, 2):
            namespace, port = self._namespace(name), self._port(name)
            peer = ("peer", "name", "eth0", "netns", namespace)
            self._bridge_link("add", port, "type", "veth", *peer)
            self._bridge_link("set", port, "master", "bridge0", "up")
            _ip("-n", namespace, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")

    def _remove(self) -> None:
        for name in self._names:
            namespace = self._namespace(name)
            for pid in _ip("netns", "pids", namespace, check=False).stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            _ip("netns", "del", namespace, check=False)
            shutil.rmtree(_NETNS / namespace, ignore_errors=True)
        if _NETNS.is_dir() and not any(_NETNS.iterdir()):
            _NETNS.rmdir()

    def _namespace(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _port(self, name: str) -> str:
        return f"port-{self._names.index(name)}"

    def _bridge_link(self, *arguments: str) -> None:
        _ip("-n", self._namespace(self._names[0]), "link", *arguments)


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done
