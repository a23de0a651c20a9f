"""Failpoints: named places in the code where tests inject faults.

Off unless the environment variable IMPALA_FAILPOINTS names some:

    IMPALA_FAILPOINTS="checkpoint.before_rename=@3:kill9; push.before_ack=20%:drop; seed=7"

An action is `kill9`, `sleep:S`, `raise` (an unexpected error), `raise:oserror` (a full disk) or
`drop` (the caller skips its work), and may be limited to once (`once:`), to the N-th hit in a
process (`@N:`) or to a share of hits (`P%:`, drawn from `seed`). Every process of a run reads the
variable itself. `arm_from_environment` accepts only a learner on loopback or a Unix socket. Any
thread may call `hit`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator

from impala_common.errors import ConfigError
from impala_common.rpc.addresses import is_local

_LOG = logging.getLogger(__name__)
VARIABLE = "IMPALA_FAILPOINTS"
"""Name of the environment variable."""

CATALOGUE = {
    "actor.mid_unroll": "actor: a step of an unroll was taken",
    "actor.before_send": "actor: an unroll message is complete and not yet in the window",
    "actor.before_verdict": "actor: a verdict has arrived and is not yet noted; drop: never is",
    "actor.weights_mid_stream": "actor: the first piece of new weights has arrived",
    "push.before_take": "front end: a message was read and not yet looked at",
    "push.before_ack": "front end: a verdict stands and is not yet sent; drop: cut the stream",
    "push.after_ack": "front end: a verdict was sent",
    "intake.before_enqueue": "front end: a message was checked; nothing of it is in storage",
    "intake.mid_batch": "front end: columns were written, and the batch is not complete",
    "intake.after_enqueue": "front end: all of a message is in storage; no verdict stands yet",
    "intake.before_hand_over": "front end: a batch is complete, and the learner does not know",
    "weights.mid_stream": "front end: the header and the first piece of weights were sent",
    "learner.before_update": "learner: a batch is loaded, no update has begun",
    "update.before_step": "learner: gradients are there, the optimizer has not stepped",
    "update.after_step": "learner: the optimizer has stepped, nothing is counted or published",
    "ranks.before_meeting": "learner: about to meet the other ranks; sleep: a rank that is late",
    "ranks.in_update": "learner: the ranks have agreed on an update, no gradient is there",
    "publish.before_commit": "learner: new weights are in shared memory, not yet the newest",
    "checkpoint.before_write": "learner: the state is copied, no file is written",
    "checkpoint.mid_write": "learner: half of a file of a checkpoint is written",
    "checkpoint.before_sync": "learner: a whole file is written and not synced",
    "checkpoint.before_rename": "learner: all files are synced, under a temporary name",
    "checkpoint.after_rename": "learner: the checkpoint has its name; old ones are still there",
    "restore.mid_load": "learner: the manifest of a checkpoint was read, its tensors were not",
}
"""Every failpoint, and the state of the process at its place."""

_ENTRY = re.compile(
    r"(?P<name>[a-z_.]+)=(?:(?P<once>once):|@(?P<nth>[1-9]\d{0,8}):|(?P<percent>\d{1,3})%:)?"
    r"(?P<action>kill9|raise|drop|sleep)(?::(?P<argument>[a-z0-9.]+))?"
)
_FORM = "name=[once:|@N:|P%:]action, where action is kill9, sleep:S, raise, raise:oserror or drop"


class InjectedError(RuntimeError):
    """The error of `raise`: unexpected, like a bug."""


@dataclasses.dataclass
class _Failpoint:
    """One armed failpoint; counts its hits under the lock."""

    action: str
    argument: str
    nth: int
    percent: int
    source: random.Random
    num_hits: int = 0

    def is_due(self) -> bool:
        self.num_hits += 1
        if self.nth:
            return self.num_hits == self.nth
        return self.percent >= 100 or self.source.random() * 100 < self.percent


_armed: dict[str, _Failpoint] = {}
_lock = threading.Lock()


def hit(name: str) -> bool:
    """Runs the action armed at `name`; returns whether the caller is to skip its work.

    Costs one look-up in an empty table if nothing is armed.
    """
    return bool(_armed) and _fire(name)


def _fire(name: str) -> bool:
    assert name in CATALOGUE, f"no failpoint {name}"
    with _lock:
        point = _armed.get(name)
        if point is None or not point.is_due():
            return False
    _LOG.warning("failpoint %s: %s", name, point.action)
    if point.action == "kill9":
        os.kill(os.getpid(), signal.SIGKILL)
    elif point.action == "sleep":
        time.sleep(float(point.argument))
    elif point.action == "raise" and point.argument == "oserror":
        raise OSError(errno.ENOSPC, f"failpoint {name}: no space left")
    elif point.action == "raise":
        raise InjectedError(f"failpoint {name}")
    return point.action == "drop"


def parse(text: str) -> dict[str, _Failpoint]:
    """Returns the failpoints that `text` arms.

    Raises:
      ConfigError: an unknown name, or text that is not of the form above.
    """
    entries = [entry.strip() for entry in text.split(";") if entry.strip()]
    seeds = [entry.removeprefix("seed=") for entry in entries if entry.startswith("seed=")]
    armed = {}
    for entry in entries:
        if entry.startswith("seed="):
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None or not _is_argument(match["action"], match["argument"] or ""):
            raise ConfigError(VARIABLE, entry, _FORM)
        name = match["name"]
        if name not in CATALOGUE:
            raise ConfigError(VARIABLE, name, "one of " + ", ".join(CATALOGUE))
        armed[name] = _Failpoint(
            match["action"],
            match["argument"] or "",
            nth=1 if match["once"] else int(match["nth"] or 0),
            percent=int(match["percent"] or 100),
            source=random.Random(f"{name}-{seeds[-1] if seeds else 0}"),  # noqa: S311 (tests)
        )
    return armed


def arm_from_environment(host: str) -> None:
    """Arms the failpoints in IMPALA_FAILPOINTS; called once by every process of a run.

    Args:
      host: address of the learner without a port, or unix:PATH.

    Raises:
      ConfigError: other machines can reach the learner, or the variable cannot be parsed.
    """
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        return
    if not is_local(host):
        raise ConfigError(
            VARIABLE,
            text,
            f"unset where the learner is at {host}",
            "failpoints break a run on purpose: they are for tests, on loopback or a Unix socket",
        )
    _armed.update(parse(text))
    _LOG.warning("failpoints armed: %s", text)


@contextlib.contextmanager
def armed(text: str) -> Iterator[None]:
    """Returns a context with the failpoints of `text` armed; for tests in one process."""
    before = dict(_armed)
    _armed.update(parse(text))
    try:
        yield
    finally:
        _armed.clear()
        _armed.update(before)


def _is_argument(action: str, argument: str) -> bool:
    match action:
        case "sleep":
            return re.fullmatch(r"\d+(\.\d+)?", argument) is not None
        case "raise":
            return argument in ("", "oserror")
    return not argument
