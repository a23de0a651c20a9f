"""ClientProcess: the client that is tried, as a process with a group of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence

PLACE = "{address}"
"""What stands for the server's address in a command."""
_READ_BYTES = 1 << 20
_KILLED_S = 10.0


class ClientProcess:
    """One run of the client's command. A context manager; what is left at its end is killed."""

    def __init__(self, command: Sequence[str], address: str) -> None:
        """Starts the command, with the server's address in place of `{address}`.

        Raises:
          OSError: there is no such program.
        """
        arguments = [part.replace(PLACE, address) for part in command]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `kill`)
        self._process = subprocess.Popen(  # noqa: S603 (the user's)
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        return self._process.poll()

    @property
    def stderr(self) -> str:
        """What the client has written to stderr; the last mebibyte of it."""
        size = os.fstat(self._errors.fileno()).st_size
        data = os.pread(self._errors.fileno(), _READ_BYTES, max(size - _READ_BYTES, 0))
        return data.decode("utf-8", "replace")

    def describe_end(self) -> str:
        """Returns how it has ended, with its last words."""
        code = self.exit_code
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        words = f": {lines[-1].strip()[:300]}" if lines else ", and said nothing"
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"the client ended with {how}{words}"

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the client and what it has started; what it said is forgotten."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_KILLED_S)
        self._errors.close()
