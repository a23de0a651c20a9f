"""EventHistory: JSON lines of what happened to each unroll, read by the history checker.

Off unless the environment variable IMPALA_HISTORY_DIR names a folder; then the actors, the
front end and the learner each append to a file of their own there. Each line is one unbuffered
write, so the events of a killed process are complete; only its last line may be torn. With
IMPALA_HISTORY_ROWS=1 the learner also records the observations it
trained on, for environments that write a pattern into them. Read by
`impala_common.testing.history_checker`, which describes each event.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

FOLDER_VARIABLE = "IMPALA_HISTORY_DIR"
ROWS_VARIABLE = "IMPALA_HISTORY_ROWS"

Array = np.ndarray[Any, Any]


class EventHistory:
    """One process's file of events; safe for any number of threads."""

    def __init__(self, path: Path | None, has_rows: bool = False) -> None:
        """Appends to `path`, which must be new; None: records nothing."""
        self.is_on = path is not None
        self.has_rows = has_rows
        self._fd = -1
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def add(self, event: str, **fields: Any) -> None:  # Any: JSON
        """Appends one event, unless the history is off."""
        if self.is_on:
            line = {"event": event, "time_s": time.monotonic(), **fields}
            os.write(self._fd, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Closes the file; later events are dropped."""
        if self.is_on:
            self.is_on = False
            os.close(self._fd)


def open_history(role: str, **fields: Any) -> EventHistory:  # Any: JSON
    """Returns this process's event history as `role`; off unless the environment variable is set.

    Args:
      role: actor, front_end or learner.
      **fields: further fields of the first event, "begin".
    """
    folder = os.environ.get(FOLDER_VARIABLE, "")
    if not folder:
        return EventHistory(None)
    name = f"{role}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
    history = EventHistory(Path(folder) / name, os.environ.get(ROWS_VARIABLE) == "1")
    history.add("begin", role=role, pid=os.getpid(), **fields)
    return history


def mark_of(arrays: Iterable[Array]) -> str:
    """Returns the xxh3 mark of one unroll, over the bytes of its leaves in order."""
    digest = xxhash.xxh3_64()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def marks_of(unrolls: Mapping[str, Array], is_time_major: Mapping[str, bool]) -> list[str]:
    """Returns the marks of all unrolls of a message.

    Args:
      unrolls: leaf name -> [T(+1), N, ...], or [N, ...] where it has no rows.
      is_time_major: in the order of the leaves, whether each has rows.
    """
    num_unrolls = unrolls["actions"].shape[1]
    return [
        mark_of(
            unrolls[name][:, n] if has_rows else unrolls[name][n]
            for name, has_rows in is_time_major.items()
        )
        for n in range(num_unrolls)
    ]


def pack_rows(rows: Array) -> str:
    """Returns the bytes of an array as text."""
    return base64.b64encode(np.ascontiguousarray(rows).tobytes()).decode()


def unpack_rows(text: str, shape: tuple[int, ...]) -> Array:
    """Returns the float32 array [*shape] in the text of `pack_rows`."""
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(shape)
