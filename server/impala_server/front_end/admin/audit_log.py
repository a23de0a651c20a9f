"""RUN/audit.jsonl: one line for each change an administrator made or tried to make.

Written by the front end off its event loop, in order. Text from clients is escaped and cut. At 16
MiB the file becomes audit.1.jsonl and a new one begins.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
from pathlib import Path
from typing import Any

from impala_common.process.logs import printable

_LOG = logging.getLogger(__name__)
_MAX_BYTES = 16 << 20
_MAX_TEXT = 200


class AuditLog:
    """The file; one writer."""

    def __init__(self, path: Path) -> None:
        """Appends to `path`."""
        self._path = path
        self._writing = asyncio.Lock()

    async def write(self, who: str, what: str, outcome: str, **facts: Any) -> None:  # Any: JSON
        """Appends one line.

        Args:
          who: token scope and peer.
          what: the command.
          outcome: "ok", or the reason it was refused with.
          **facts: arguments, values before and after, request_id, text.
        """
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "who": printable(who, _MAX_TEXT),
            "what": what,
            "outcome": outcome,
            **{name: _clean(value) for name, value in facts.items()},
        }
        async with self._writing:
            await asyncio.to_thread(self._append, json.dumps(line) + "\n")

    def _append(self, text: str) -> None:
        try:
            if self._path.exists() and self._path.stat().st_size + len(text) > _MAX_BYTES:
                os.replace(self._path, _older(self._path))
            descriptor = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600
            )
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            _LOG.error("audit line could not be written: %s (%s)", error, printable(text))


def _older(path: Path) -> Path:
    """Returns where a full file goes; two files in one folder do not replace each other's."""
    return path.with_name(f"{path.stem}.1{path.suffix}")


def _clean(value: Any) -> Any:  # Any: JSON
    if isinstance(value, dict):
        return {printable(name, 64): _clean(one) for name, one in value.items()}
    return printable(value, _MAX_TEXT) if isinstance(value, str) else value
