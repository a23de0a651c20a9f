"""Runs a process that ends with an answer, and waits for that process alone.

What a process writes goes to files here. A pipe ends only when every process that inherited it has
ended: a simulator that an environment started and left behind would be waited for, too.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from impala_common.process.starting import open_memory_file, starting

_POLL_S = 0.2
_MAX_REASON = 500


class Answer(NamedTuple):
    """How a process ended.

    Attributes:
      code: its exit code; negative: the signal that ended it.
      out: what it wrote to stdout.
      err: what it wrote to stderr.
    """

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The end of `err`, in whole lines as far as they fit; else the exit code."""
        text = self.err.strip()
        end = text[-_MAX_REASON:]
        if len(end) < len(text):
            end = end.partition("\n")[2].strip() or end
        return end or f"exit code {self.code}"


def run_to_its_end(
    command: Sequence[str],
    timeout_s: float,
    is_unwanted: Callable[[], bool] = lambda: False,
) -> Answer:
    """Returns how `command` ended; it runs in a session of its own, without stdin.

    Args:
      command: program and arguments.
      timeout_s: seconds after which it is killed.
      is_unwanted: asked five times a second; it is killed when this says so.

    Raises:
      TimeoutError: it took longer than `timeout_s`.
      ImpalaError: it cannot be started.
    """
    deadline_s = time.monotonic() + timeout_s
    with contextlib.ExitStack() as files:
        with starting(f"the process that answers ({' '.join(command[:5])} ...)"):
            out, err = (files.enter_context(open_memory_file(name)) for name in ("out", "err"))
            process = subprocess.Popen(  # noqa: S603 (callers run our own modules)
                [*command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        while True:
            try:
                code = process.wait(_POLL_S)
                break
            except subprocess.TimeoutExpired:
                is_late = time.monotonic() > deadline_s
                if is_late or is_unwanted():
                    process.kill()
                    code = process.wait()
                    if is_late:
                        text = f"it took longer than {timeout_s:g} s"
                        raise TimeoutError(text) from None
                    break
            except BaseException:  # Ctrl-C
                process.kill()
                raise
        out.seek(0)
        err.seek(0)
        return Answer(
            code, out.read().decode(errors="replace"), err.read().decode(errors="replace")
        )
