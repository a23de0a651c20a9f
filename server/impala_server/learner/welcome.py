"""Waits until the front end listens, before the learner of a run that goes on touches the run."""

from __future__ import annotations

import contextlib
from multiprocessing import connection

from impala_common.errors import QueueClosedError
from impala_server import messages
from impala_server.storage.control_pipe import ControlPipe


def wait_until_bound(supervisor: ControlPipe) -> str | None:
    """Returns the front end's address once it listens; None if told to stop first.

    Until then settings may still be refused (a port, TLS files), and a resumed run must stay
    unchanged.
    """
    with contextlib.suppress(QueueClosedError):
        while True:
            connection.wait([supervisor.fileno()])
            news = supervisor.receive_all()
            if any(isinstance(message, messages.Stop) for message in news):
                return None  # also where the address came with it
            for message in news:
                if isinstance(message, messages.Bound):
                    return message.address
                raise messages.unexpected_message(message, "the learner")
    return None
