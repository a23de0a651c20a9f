"""Checks a run's event history against the guarantees.

Used by tests/faults after every run, on the files that `impala_common.run.event_history` wrote.
Each `validate_*` reports one kind of violation; `check` runs all of them. docs/guarantees.md has
the guarantees.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from impala_common.testing.history_reader import (
    Event,
    LearnerLife,
    MessageKey,
    RunHistory,
    UnrollKey,
    read_history,
)
from impala_common.testing.patterns import Pattern

_MAX_SHOWN = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Result of the checker.

    Attributes:
      violations: findings by validator, without validators that found nothing.
      figures: counts of events.
    """

    violations: dict[str, list[str]]
    figures: dict[str, int]

    def raise_if_violated(self) -> None:
        """Raises AssertionError with the first findings, if any."""
        lines = [
            f"{name}: {text}"
            for name, texts in self.violations.items()
            for text in texts[:_MAX_SHOWN]
        ]
        if lines:
            raise AssertionError("the history breaks a promise:\n" + "\n".join(lines))


def check(folder: Path) -> Report:
    """Checks the event history in `folder`."""
    history = read_history(folder)
    found = {name: list(validate(history)) for name, validate in VALIDATORS.items()}
    return Report({name: texts for name, texts in found.items() if texts}, _figures(history))


def validate_readable(history: RunHistory) -> Iterator[str]:
    """Every line can be read, except the last one of a killed process."""
    yield from history.problems


def validate_trained_once(history: RunHistory) -> Iterator[str]:
    """No unroll is taken into training twice, or taken and dropped.

    How often the learner uses a batch that it took is its setting: one event, however often.
    """
    for key, taken in history.taken.items():
        if len(taken) > 1:
            yield f"{key} was " + " and ".join(one.event for one in taken)


def validate_nothing_lost(history: RunHistory) -> Iterator[str]:
    """Every acknowledged unroll was trained on, dropped, or in storage when the learner ended.

    Storage has a capacity: an unroll accepted more than twice as many before the last one has
    left it, even where several learner threads overtake each other.
    """
    acknowledged = {k for k, sent in history.sent.items() if sent.outcome in _ACKNOWLEDGED}
    for run_id, life in history.lives.items():
        known = {key for key, _ in life.accepted}
        for key in acknowledged:
            if key.learner_run_id == run_id and key not in known:
                yield f"{key} was acknowledged, and the front end never accepted it"
        capacity = 2 * life.begin["num_queued_at_most"]
        # The last message may be waiting for room: only what came before it is in storage.
        num_left = sum(count for _, count in life.accepted[:-1])
        for key, count in life.accepted:
            if num_left <= capacity:
                break
            num_left -= count
            for place in range(count):
                if UnrollKey(key, place) not in history.taken:
                    yield f"{key}, unroll {place}, was accepted and is nowhere"


def validate_nothing_invented(history: RunHistory) -> Iterator[str]:
    """Every unroll trained on was accepted and is the one that an actor sent, by its mark."""
    accepted = {key: count for life in history.lives.values() for key, count in life.accepted}
    for key, taken in history.taken.items():
        sent = history.sent.get(key.message)
        if sent is None or key.place >= len(sent.marks):
            yield f"{key} was {taken[0].event}, and no actor sent it"
        elif taken[0].mark != sent.marks[key.place]:
            yield f"{key} was sent as {sent.marks[key.place]}, {taken[0].event} as {taken[0].mark}"
        elif taken[0].version != sent.version:
            yield f"{key} was made with weights {sent.version}, stored with {taken[0].version}"
        if key.place >= accepted.get(key.message, 0):
            yield f"{key} was {taken[0].event}, and the front end never accepted it"


def validate_versions(history: RunHistory) -> Iterator[str]:
    """Weights go forward in every life, and actors load published versions only, in order."""
    published: dict[int, set[int]] = {}
    for run_id, life in history.lives.items():
        versions = [one["version"] for one in life.events if one["event"] == "weights"]
        published[run_id] = set(versions)
        for before, after in itertools.pairwise(versions):
            if after <= before:
                yield f"life {run_id} published version {after} after {before}"
    for swaps in history.swaps:
        newest: dict[int, int] = {}
        for run_id, version in swaps:
            if run_id in published and version not in published[run_id]:
                yield f"an actor loaded version {version}, which life {run_id} never published"
            if version < newest.get(run_id, -1):
                yield f"an actor went back from version {newest[run_id]} to {version}"
            newest[run_id] = version


def validate_steps(history: RunHistory) -> Iterator[str]:
    """The learner's steps are the sum over the batches of the history that survived."""
    for run_id, life in history.lives.items():
        steps, version = life.begin["trained_steps"], life.begin["version"]
        for event in life.events:
            match event["event"]:
                case "trained":
                    steps, version = steps + event["steps"], version + 1
                case "rollback":
                    steps, version = event["trained_steps"], event["version"]
                case _:  # checkpoints are of a moment in the past, where a worker writes
                    continue
            counted = (event["trained_steps"], event["version"])
            if counted != (steps, version):
                yield f"life {run_id} counts {counted} (steps, version), not {(steps, version)}"
                steps, version = counted
        saved = {(life.begin["trained_steps"], life.begin["version"])} | {
            (event["trained_steps"], event["version"])
            for event in life.events
            if event["event"] in ("trained", "rollback")
        }
        for event in life.events:
            state = (event.get("trained_steps"), event.get("version"))
            if event["event"] == "checkpoint_begin" and state not in saved:
                yield f"life {run_id} saved {state} (steps, version), a state it never was in"


def validate_restores(history: RunHistory) -> Iterator[str]:
    """Every life goes on from the newest checkpoint that was committed before it."""
    newest: Event | None = None
    unfinished: list[Event] = []
    for run_id, life in history.lives.items():
        begin = life.begin
        state = (begin["trained_steps"], begin["version"])
        may_be = [(one["trained_steps"], one["version"]) for one in [newest, *unfinished] if one]
        if begin["restored"] is None and newest is not None:
            yield f"life {run_id} began anew, although {newest['name']} was committed"
        elif begin["restored"] is not None and state not in may_be:
            wanted = newest["name"] if newest else "none"
            yield f"life {run_id} restored {begin['restored']} {state}; newest committed: {wanted}"
        elif begin["restored"] is not None:  # committed, whether its life lived to write that down
            newest = {**begin, "name": begin["restored"]}
        unfinished = []
        for event in life.events:
            match event["event"]:
                case "checkpoint_begin":
                    unfinished.append(event)
                case "checkpoint_failed":
                    unfinished.pop()
                case "checkpoint_commit":
                    unfinished.pop()
                    if event["name"].startswith("step-"):  # others are never resumed from
                        newest = event


def validate_resolved(history: RunHistory) -> Iterator[str]:
    """A message without a verdict at the actor was either accepted or never arrived."""
    for key, sent in history.sent.items():
        if sent.outcome in ("", "info") and key.learner_run_id not in history.lives:
            yield f"{key} has no verdict, and its learner life no history"


def validate_balance(history: RunHistory) -> Iterator[str]:
    """Where a front end ended in order, accepted = trained + dropped + queued."""
    for run_id, life in history.lives.items():
        if (balance := life.balance) is None:
            continue
        rest = balance["trained"] + balance["dropped"] + balance["queued"]
        if balance["accepted"] != rest:
            yield f"life {run_id} accepted {balance['accepted']}, and {rest} are accounted for"
        num_recorded = sum(count for _, count in life.accepted)
        if not balance["accepted"] <= num_recorded:
            yield f"life {run_id} accepted {balance['accepted']}, {num_recorded} on record"


def validate_patterns(history: RunHistory) -> Iterator[str]:
    """Observations trained on come from one environment in order, each used once."""
    owners: dict[int, tuple[str, int]] = {}
    spans: dict[int, list[Pattern]] = {}
    for key, taken in history.taken.items():
        pattern = taken[0].pattern
        if taken[0].event != "trained" or pattern is None:
            continue
        if isinstance(pattern, str):
            yield f"{key}: {pattern}"
            continue
        sent = history.sent.get(key.message)
        is_remote = sent is not None and sent.has_remote_slots
        if pattern.num_repeated and not is_remote:
            yield f"{key}: observation {pattern.last} is there {pattern.num_repeated + 1} times"
        # Unrolls of remote slots are sent as they are complete, not slot by slot.
        place = _ANY_PLACE if is_remote else key.place
        owner = (sent.actor_id if sent else "nobody", place)
        if owners.setdefault(pattern.token, owner) != owner:
            yield f"{key}: observations of {owners[pattern.token]} under the name of {owner}"
        spans.setdefault(pattern.token, []).append(pattern)
    for token, found in spans.items():
        for before, after in itertools.pairwise(sorted(found)):
            if after.first <= before.last - 1:  # the last row of one is the first of the next
                yield f"environment {token:#x}: rows {before} and {after} overlap"


VALIDATORS: dict[str, Callable[[RunHistory], Iterator[str]]] = {
    "readable": validate_readable,
    "trained_once": validate_trained_once,
    "nothing_lost": validate_nothing_lost,
    "nothing_invented": validate_nothing_invented,
    "versions": validate_versions,
    "steps": validate_steps,
    "restores": validate_restores,
    "resolved": validate_resolved,
    "balance": validate_balance,
    "patterns": validate_patterns,
}
"""Every validator, by the guarantee it checks."""

_ANY_PLACE = -1
_ACKNOWLEDGED = ("accepted", "duplicate")


def _figures(history: RunHistory) -> dict[str, int]:
    lives = list(history.lives.values())
    taken = [one.event for all_of_it in history.taken.values() for one in all_of_it]
    outcomes = [sent.outcome for sent in history.sent.values()]
    return {
        "learner_lives": len(lives),
        "actor_lives": history.num_actors,
        "messages_sent": len(outcomes),
        "messages_acknowledged": sum(outcome in _ACKNOWLEDGED for outcome in outcomes),
        "messages_without_verdict": sum(outcome in ("", "info") for outcome in outcomes),
        "messages_invalid": sum(life.counts.get("invalid", 0) for life in lives),
        "duplicates_received": sum(life.counts.get("duplicate", 0) for life in lives),
        "unrolls_accepted": sum(count for life in lives for _, count in life.accepted),
        "unrolls_trained": taken.count("trained"),
        "unrolls_dropped": taken.count("dropped"),
        "unrolls_queued_at_ends": _num_queued_at_ends(history),
        "checkpoints_committed": sum(_count(life, "checkpoint_commit") for life in lives),
        "checkpoints_cut_short": sum(
            _count(life, "checkpoint_begin")
            - _count(life, "checkpoint_commit")
            - _count(life, "checkpoint_failed")
            for life in lives
        ),
        "steps_lost_at_most": _most_steps_lost(lives),
    }


def _count(life: LearnerLife, name: str) -> int:
    return sum(event["event"] == name for event in life.events)


def _num_queued_at_ends(history: RunHistory) -> int:
    keys: list[tuple[MessageKey, int]] = [
        one for life in history.lives.values() for one in life.accepted
    ]
    return sum(
        UnrollKey(key, place) not in history.taken for key, count in keys for place in range(count)
    )


def _most_steps_lost(lives: list[LearnerLife]) -> int:
    """Returns the largest number of agent steps lost in a crash."""
    lost = [0]
    for before, after in itertools.pairwise(lives):
        trained = [one["trained_steps"] for one in before.events if one["event"] == "trained"]
        lost.append((trained[-1] if trained else 0) - after.begin["trained_steps"])
    return max(lost)
