"""Rule and Result: one sentence of a contract, and what came of playing it.

A check raises ViolationError where the other side breaks its rule, and SkippedError where the rule
cannot be played; it returns otherwise.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Literal, Protocol, TypeVar

import grpc

from impala_conformance.refusal import read_refusal

Outcome = Literal["passed", "failed", "skipped"]


class ViolationError(Exception):
    """The other side broke the rule; the text says what was expected and what came."""


class SkippedError(Exception):
    """The rule cannot be played here; the text says why."""


class Peer(Protocol):
    """What rules are played against."""

    def close_streams(self) -> None:
        """Ends all streams that a rule has left open."""

    def require_alive(self) -> None:
        """Raises ViolationError unless somebody new is served."""


PeerT = TypeVar("PeerT", bound=Peer)


@dataclasses.dataclass(frozen=True)
class Rule(Generic[PeerT]):
    """One rule.

    Attributes:
      name: its name, such as "broken-stream".
      contract: what must hold, in one sentence.
      check: plays it.
      ends_server: whether nobody is served after it.
    """

    name: str
    contract: str
    check: Callable[[PeerT], None]
    ends_server: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one rule.

    Attributes:
      rule: its name.
      contract: what must hold.
      outcome: passed, failed or skipped.
      text: why it failed or was skipped.
      duration_s: how long it took.
    """

    rule: str
    contract: str
    outcome: Outcome
    text: str
    duration_s: float


def play(rules: Iterable[Rule[PeerT]], peer: PeerT) -> Iterator[Result]:
    """Plays rules one after another; yields each result as it is known."""
    for rule in rules:
        start_s = time.monotonic()
        outcome, text = _play_one(rule, peer)
        yield Result(rule.name, rule.contract, outcome, text, time.monotonic() - start_s)


def require(is_so: bool, expected: str, got: object) -> None:
    """Raises ViolationError with both unless `is_so`."""
    if not is_so:
        raise ViolationError(f"expected {expected}, got {got}")


def _play_one(rule: Rule[PeerT], peer: PeerT) -> tuple[Outcome, str]:
    try:
        try:
            rule.check(peer)
        finally:
            peer.close_streams()
        if not rule.ends_server:
            peer.require_alive()
    except ViolationError as error:
        return "failed", str(error)
    except SkippedError as error:
        return "skipped", str(error)
    except grpc.RpcError as error:
        return "failed", f"expected an answer, got {read_refusal(error)}"
    return "passed", ""
