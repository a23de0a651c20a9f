"""Reads the event files of a run into one table.

For `history_checker`. The events, by who records them (`impala_common.run.event_history`):

    actor      session, invoke, ok, fail, info (the session ended before a verdict), swap, end
    front_end  accepted, duplicate, stale, capacity, invalid, end (the balance)
    learner    trained, dropped, weights, rollback, checkpoint_begin/_commit/_failed, end

`begin` is the first of every file. A file without `end` is that of a process that was killed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from impala_common.testing.patterns import Pattern, read_pattern

Event = dict[str, Any]
"""One event. Any: JSON."""


class MessageKey(NamedTuple):
    """Names one message of one session of one life of the learner."""

    learner_run_id: int
    actor_index: int
    session_epoch: int
    sequence_number: int


class UnrollKey(NamedTuple):
    """Names one unroll of a message."""

    message: MessageKey
    place: int


@dataclasses.dataclass(slots=True)
class SentMessage:
    """An actor's record of one message.

    Attributes:
      actor_id: the sender.
      version: policy version that acted.
      marks: of its unrolls.
      outcome: the verdict's name; "info" where the session ended before; "" where the actor did.
      has_remote_slots: whether a policy server sent it, whose unrolls have no fixed place.
    """

    actor_id: str
    version: int
    marks: list[str]
    outcome: str = ""
    has_remote_slots: bool = False


class TakenUnroll(NamedTuple):
    """The learner's record of one unroll that it trained on or dropped.

    `pattern` is what its observations say, or what is wrong with them; None if not recorded.
    """

    event: str
    version: int
    mark: str
    pattern: Pattern | str | None


@dataclasses.dataclass(slots=True)
class LearnerLife:
    """One life of the learner: its own events in order, and those of its front end."""

    begin: Event
    events: list[Event] = dataclasses.field(default_factory=list)
    accepted: list[tuple[MessageKey, int]] = dataclasses.field(default_factory=list)
    """Messages in the order they were accepted, with their numbers of unrolls."""
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """Other messages, by verdict."""
    balance: Event | None = None


@dataclasses.dataclass(slots=True)
class RunHistory:
    """All records of a run.

    Attributes:
      lives: of the learner, in order of time, by learner_run_id.
      sent: messages of actors.
      taken: the learner's records of unrolls, in order.
      swaps: by actor process: (learner_run_id, version), in order.
      num_actors: actor processes.
      problems: lines that could not be read.
    """

    lives: dict[int, LearnerLife] = dataclasses.field(default_factory=dict)
    sent: dict[MessageKey, SentMessage] = dataclasses.field(default_factory=dict)
    taken: dict[UnrollKey, list[TakenUnroll]] = dataclasses.field(default_factory=dict)
    swaps: list[list[tuple[int, int]]] = dataclasses.field(default_factory=list)
    num_actors: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def read_history(folder: Path) -> RunHistory:
    """Returns the records in the files of `folder`."""
    history = RunHistory()
    files: dict[str, list[Path]] = {"learner": [], "front_end": [], "actor": []}
    for path in sorted(folder.glob("*.jsonl")):
        files[path.name.partition("-")[0]].append(path)
    begins = []
    for path in files["learner"]:
        events = _read_events(path, history)
        if (begin := next(events, None)) is not None:
            begins.append((begin["time_s"], begin, events))
    for _, begin, events in sorted(begins, key=lambda one: one[0]):
        life = history.lives[begin["learner_run_id"]] = LearnerLife(begin)
        _read_learner(life, events, history)
    for path in files["front_end"]:
        _read_front_end(_read_events(path, history), history)
    for path in files["actor"]:
        _read_actor(_read_events(path, history), history)
    return history


def _read_events(path: Path, history: RunHistory) -> Iterator[Event]:
    """Yields the events of a file; a torn last line is left out, any other is a problem."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            try:
                yield json.loads(line)
            except ValueError:
                if line.endswith(b"\n"):
                    history.problems.append(f"{path.name}, line {number + 1}: {line[:80]!r}")


def _read_learner(life: LearnerLife, events: Iterator[Event], history: RunHistory) -> None:
    run_id, num_rows = life.begin["learner_run_id"], life.begin["unroll_length"] + 1
    for event in events:
        for index, epoch, sequence, place, version, mark, *rows in event.pop("unrolls", ()):
            key = UnrollKey(MessageKey(run_id, index, epoch, sequence), place)
            pattern = read_pattern(rows[0], num_rows) if rows else None
            taken = TakenUnroll(event["event"], version, mark, pattern)
            history.taken.setdefault(key, []).append(taken)
        life.events.append(event)


def _read_front_end(events: Iterator[Event], history: RunHistory) -> None:
    begin = next(events, None)
    if begin is None:
        return
    run_id = begin["learner_run_id"]
    life = history.lives.get(run_id)
    if life is None:
        history.problems.append(f"a front end of learner life {run_id}, which has no history")
        return
    for event in events:
        match event["event"]:
            case "accepted":
                key = MessageKey(run_id, event["index"], event["epoch"], event["seq"])
                life.accepted.append((key, event["count"]))
            case "end":
                life.balance = event
            case name:
                life.counts[name] = life.counts.get(name, 0) + 1


def _read_actor(events: Iterator[Event], history: RunHistory) -> None:
    begin = next(events, None)
    if begin is None:
        return
    history.num_actors += 1
    swaps: list[tuple[int, int]] = []
    history.swaps.append(swaps)
    indexes: dict[tuple[int, int], int] = {}
    for event in events:
        match event["event"]:
            case "session":
                indexes[event["learner_run_id"], event["epoch"]] = event["index"]
            case "swap":
                swaps.append((event["learner_run_id"], event["version"]))
            case "invoke":
                message = SentMessage(
                    begin["actor_id"],
                    event["version"],
                    event["marks"],
                    has_remote_slots=begin.get("has_remote_slots", False),
                )
                history.sent[_key_of(event, indexes)] = message
            case "ok" | "fail" | "info":
                message = history.sent[_key_of(event, indexes)]
                message.outcome = str(event.get("outcome", event["event"]))


def _key_of(event: Event, indexes: dict[tuple[int, int], int]) -> MessageKey:
    run_id, epoch = event["learner_run_id"], event["epoch"]
    return MessageKey(run_id, indexes[run_id, epoch], epoch, event["seq"])
