"""Makes stdin, stdout and stderr safe to use: closed ones, and encodings without some characters.

An interrupt that nothing catches is a line there, no traceback.

`prepare_standard_streams` is called first in `main` of impala-thin-actor and impala-conformance,
which know no other package of this project. The other commands call
impala_common.process.standard_streams, which does more.
Standard library only.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import NoReturn


def prepare_standard_streams() -> None:
    """Opens closed streams as /dev/null; characters that cannot be encoded become escapes."""
    tell_interrupts_in_a_line()
    open_closed_descriptors()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def open_closed_descriptors() -> None:
    """Opens those of the descriptors 0 to 2 that are closed as /dev/null.

    They would otherwise be given to the next file or socket, and messages be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Takes the lowest free number; the loop goes in order, so it is this descriptor.
            os.open(os.devnull, os.O_RDWR)


def tell_interrupts_in_a_line() -> None:
    """Makes an interrupt (Ctrl-C) that nothing catches a line in place of a traceback.

    Python ends the process as the signal would have, with 130 in a shell.
    """
    before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
        else:
            before(kind, error, trace)

    sys.excepthook = tell


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Returns a context in which a command prints its results, all of them by its end.

    A reader of stdout that has seen enough (`| head`) ends the context, without an error; what is
    printed later is dropped.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _has_lost_reader(1):
            raise  # another pipe's
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end


def _has_lost_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def leave(code: int) -> NoReturn:
    """Ends this process with an exit code, after what was printed has been written.

    Waits for no thread and runs no exit handler: an environment may have left some behind.
    """
    for stream in (sys.stdout, sys.stderr):
        # The reader may be gone; code of users may have closed or replaced the stream.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
