"""ClientPeer: the client that rules are played against, and the plays that several rules judge.

Rules about what every client sends all the time are judged from one recorded play, and those about
a broken stream from another; each further rule has a process of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from impala_conformance.client_session import ClientSession
from impala_conformance.play_judge import UnreadableError
from impala_conformance.rule import ViolationError
from impala_rl.v1 import policy_pb2


@dataclasses.dataclass
class Record:
    """What one recorded play has shown.

    Attributes:
      hello: of the client.
      violations: name of a rule -> what broke it first.
      error: what ended the play early, if no rule's violation did; empty: nothing.
      stop: what was violated so that the play could not go on; empty: it went on.
      metadata: of the first stream.
      message_sizes: (bytes, slots) of its messages.
      num_ends: episodes that ended.
      num_taken: observations.
    """

    hello: policy_pb2.PlayHello = dataclasses.field(default_factory=policy_pb2.PlayHello)
    violations: dict[str, str] = dataclasses.field(default_factory=dict)
    error: str = ""
    stop: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    message_sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    num_ends: int = 0
    num_taken: int = 0

    def note(self, rule: str, text: str) -> None:
        """Notes what broke a rule; the first time counts."""
        self.violations.setdefault(rule, text)


class ClientPeer:
    """What rules of a client are played against.

    Attributes:
      command: of the client, with `{address}`.
      patience_s: longest wait for what the client must do next.
      start_s: longest wait for its first stream.
      token: that the client was given; empty: none.
    """

    def __init__(
        self, command: Sequence[str], *, patience_s: float, start_s: float, token_file: str = ""
    ) -> None:
        """Starts nothing yet."""
        self.command = list(command)
        self.patience_s = patience_s
        self.start_s = start_s
        self.token = Path(token_file).read_text("utf-8").strip() if token_file else ""
        self._records: dict[str, Record] = {}

    def start(self) -> ClientSession:
        """Starts the client, which must keep every rule that can be judged in passing."""
        return self._start(None)

    def record(self, name: str, script: Callable[[ClientSession], None]) -> Record:
        """Returns the record `name`; plays `script` for it the first time."""
        if name not in self._records:
            self._records[name] = self._play(script)
        return self._records[name]

    def close_streams(self) -> None:
        """Does nothing: each session ends its own."""

    def require_alive(self) -> None:
        """Does nothing: each rule has a process of its own."""

    def _play(self, script: Callable[[ClientSession], None]) -> Record:
        record = Record()
        with self._start(record.note) as session:
            try:
                script(session)
            except UnreadableError as error:
                record.stop = str(error)
            except ViolationError as error:
                if record.violations:
                    record.stop = str(error)
                else:
                    record.error = str(error)
            record.hello = session.hello
            record.message_sizes = session.message_sizes
            if session.hello.slot_count:
                record.metadata = session.stream.metadata
                record.num_ends = session.judge.num_ends
                record.num_taken = session.judge.num_taken
        return record

    def _start(self, note: Callable[[str, str], None] | None) -> ClientSession:
        return ClientSession(
            self.command, patience_s=self.patience_s, start_s=self.start_s, note=note
        )
