"""RankReport: what each rank tells the others about itself, about once a second.

Made on the rank loop's thread; read on the controller's. Rank 0 adds them up for its lines of
metrics; every rank's front end learns where actors may go. Pure.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence

from impala_common.errors import RankLostError
from impala_server.storage.handoff import FinishedEpisode

MAX_EPISODES = 1000
"""Episodes told in one report at most: the newest."""
_STRAGGLES = 1.5
"""A rank that takes so many times as long as the median rank is a straggler."""
_MIN_UPDATE_S = 0.002
_NUMBERS = ("storage_fill", "busy")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RankReport:
    """One rank, since its last report.

    Attributes:
      address: HOST:PORT by which actors reach it.
      counts: the front end's counts, by the names of FrontEndCounts.
      episodes: finished episodes, return and steps of each.
      digest: of weights and statistics; equal on all ranks.
      num_updates: updates made.
      num_steps: agent steps of its own batches.
      compute_s: seconds of its own part of an update, on average.
      exchange_s: seconds of an update in which it met the others, on average.
      num_bytes: sent for gradients.
    """

    address: str
    counts: Mapping[str, float]
    episodes: Sequence[tuple[float, int]]
    digest: str
    num_updates: int
    num_steps: int
    compute_s: float
    exchange_s: float
    num_bytes: int

    def to_json(self) -> bytes:
        """Returns the report as bytes."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> RankReport:
        """Returns the report that `to_json` wrote."""
        return cls(**json.loads(data))

    def list_episodes(self) -> list[FinishedEpisode]:
        """Returns the finished episodes."""
        return [FinishedEpisode(float(value), int(steps)) for value, steps in self.episodes]


def require_same_weights(reports: Sequence[RankReport]) -> None:
    """Raises RankLostError unless all ranks have the same weights and statistics, bit by bit."""
    first = reports[0].digest
    parted = [rank for rank, report in enumerate(reports) if report.digest != first]
    if parted:
        raise RankLostError(
            f"learner rank {', '.join(map(str, parted))} has other weights than rank 0: a fault of "
            "memory, of a device or of this software; all ranks end without saving"
        )


def add_counts(reports: Sequence[RankReport]) -> dict[str, float]:
    """Returns the counts of all front ends: sums; of shares, means."""
    total: dict[str, float] = {}
    for report in reports:
        for name, value in report.counts.items():
            total[name] = total.get(name, 0) + value
    for name in _NUMBERS:
        total[name] = total.get(name, 0.0) / max(len(reports), 1)
    return total


def find_stragglers(reports: Sequence[RankReport]) -> list[int]:
    """Returns the ranks whose own part of an update takes far longer than the others'."""
    found = []
    for rank, report in enumerate(reports):
        others = [one.compute_s for other, one in enumerate(reports) if other != rank]
        usual = max(statistics.median_low(others), _MIN_UPDATE_S) if others else report.compute_s
        if report.num_updates and report.compute_s > _STRAGGLES * usual:
            found.append(rank)
    return found
