"""A nemesis's plan of faults and times, drawn from a seed, so that a run can be repeated.

A plan is a list of faults in order of time, with as many of each kind as were asked for. The
machine answers in its own time, so two runs of a plan differ in what meets what.
"""

from __future__ import annotations

import dataclasses
import random

SAVE_POINTS = (
    "checkpoint.before_write",
    "checkpoint.mid_write",
    "checkpoint.before_sync",
    "checkpoint.before_rename",
    "checkpoint.after_rename",
)
"""Where a learner is killed inside a save."""
SERVER_POINTS = (
    "intake.before_enqueue=@{n}:kill9",
    "intake.mid_batch=@{n}:kill9",
    "intake.after_enqueue=@{n}:kill9",
    "intake.before_hand_over=@{n}:kill9",
    "push.before_take=@{n}:kill9",
    "push.after_ack=@{n}:kill9",
    "push.before_ack=3%:drop; seed={n}",
    "push.before_ack=10%:drop; seed={n}",
    "weights.mid_stream=@{n}:kill9",
    "learner.before_update=@{n}:kill9",
    "update.before_step=@{n}:kill9",
    "update.after_step=@{n}:kill9",
    "publish.before_commit=@{n}:kill9",
)
"""Where else a learner or its front end is killed, or loses answers; `n` is drawn."""
ACTOR_POINTS = (
    "actor.mid_unroll=@{n}:kill9",
    "actor.before_send=@{n}:kill9",
    "actor.before_verdict=@{n}:kill9",
    "actor.weights_mid_stream=@{n}:kill9",
)
MARKS = {
    "actor_kill": "an actor is killed (-9), at once or at a failpoint",
    "actor_stop": "an actor is stopped and goes on later (SIGSTOP, SIGCONT)",
    "actor_term": "an actor is asked to end (SIGTERM)",
    "learner_kill": "learner, front end, supervisor or all three are killed (-9)",
    "learner_kill_in_save": "the learner is killed at a failpoint inside a save",
    "learner_stop": "learner or front end is stopped and goes on later",
    "learner_term": "the learner server is asked to end (SIGTERM)",
    "partition": "nothing passes between actors and learner, 10 to 30 s",
    "acks_lost": "nothing passes from the learner to one actor, 2 to 6 s",
    "reset": "all connections of an actor are reset",
    "cut": "a connection ends in the midst of a message",
    "flip": "a bit of what an actor sends is flipped",
    "delay": "everything an actor sends and gets is 0.1 s late, for some seconds",
}
"""Kinds of faults."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when, what, against whom (a number to choose by), for how long, in what way."""

    at_s: float
    kind: str
    target: int
    duration_s: float
    detail: str = ""


def make_plan(seed: int, duration_s: float, counts: dict[str, int]) -> list[Fault]:
    """Returns faults spread over `duration_s`, so many of each kind, in order of time."""
    source = random.Random(seed)
    plan = [
        _make_fault(source, kind, (k + source.random()) / count * duration_s)
        for kind, count in sorted(counts.items())
        for k in range(count)
    ]
    return sorted(plan, key=lambda fault: fault.at_s)


def _make_fault(source: random.Random, kind: str, at_s: float) -> Fault:
    detail, duration_s = "", 0.0
    match kind:
        case "actor_kill":
            point = source.choice(ACTOR_POINTS).format(n=source.randint(1, 20))
            detail = source.choice(["", "", "", point])
        case "actor_stop":
            duration_s = source.uniform(1, 12)
        case "learner_kill":
            point = source.choice(SERVER_POINTS).format(n=source.randint(1, 60))
            detail = source.choice(["learner", "front_end", "supervisor", "all", point, point])
        case "learner_kill_in_save":
            detail = f"{source.choice(SAVE_POINTS)}=@{source.randint(2, 9)}:kill9"
        case "learner_stop":
            duration_s, detail = source.uniform(1, 8), source.choice(["learner", "front_end"])
        case "partition":
            duration_s = source.uniform(10, 30)
        case "acks_lost":
            duration_s = source.uniform(2, 6)
        case "delay":
            duration_s, detail = source.uniform(2, 8), "0.1"
        case "cut" | "flip":
            detail = str(source.randint(1, 20_000))
    return Fault(at_s, kind, source.randrange(1 << 30), duration_s, detail)


SHORT_MINUTES = 8.0
_SHORT = {
    "actor_kill": 115,
    "actor_stop": 10,
    "actor_term": 6,
    "learner_kill": 18,
    "learner_kill_in_save": 8,
    "learner_stop": 4,
    "learner_term": 2,
    "partition": 6,
    "acks_lost": 4,
    "reset": 8,
    "cut": 6,
    "flip": 4,
    "delay": 4,
}
"""Of each kind in SHORT_MINUTES: some more than `make faults` promises, as not every fault meets
somebody who is there."""
_SOAK = {kind: 8 * count for kind, count in _SHORT.items()} | {
    "actor_kill": 2200,
    "learner_kill": 230,
    "learner_kill_in_save": 110,
    "partition": 66,
}
"""Of each kind in two hours."""


def counts_for(minutes: float) -> dict[str, int]:
    """Returns how many faults of each kind a run of `minutes` has; from 100 on, as in a soak."""
    per_run, scale = (_SOAK, minutes / 120) if minutes >= 100 else (_SHORT, minutes / SHORT_MINUTES)
    return {kind: max(1, round(count * scale)) for kind, count in per_run.items()}
