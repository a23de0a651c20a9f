"""Names the bottleneck of a run: environment, inference, network, batch assembly or device.

Fed by the controller with each line of metrics, under no lock; answers with one
sentence and the numbers it rests on. Works on shares, smoothed over a few
lines, so that it does not change its mind every second. Knows neither gRPC nor
torch.

The order of questions follows an unroll backwards: is the device busy, do full
batches wait for it, is the front end busy taking unrolls in, do actors wait
although there is room, and only then: what do actors do all the time?
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from impala_common.run import metrics

_KEEP = 0.7  # how much of the old value a new line leaves
_BUSY = 0.8
_FULL = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Shares:
    """What a judgement rests on; all in [0, 1].

    Attributes:
      device: of wall-clock time that an update is under way.
      loading: of a learner thread's time spent turning slots into batches on the device.
      waiting: of a learner thread's time spent waiting for a full slot.
      fill: of rollout storage in use.
      front_end: of the front end's event loop that is busy.
      environment: of actors' time spent in environments.
      inference: of actors' time spent choosing actions.
      blocked: of actors' time spent waiting for a verdict.
    """

    device: float = 0.0
    loading: float = 0.0
    waiting: float = 0.0
    fill: float = 0.0
    front_end: float = 0.0
    environment: float = 0.0
    inference: float = 0.0
    blocked: float = 0.0


def find_bottleneck(shares: Shares) -> str:
    """Returns a sentence: a part of metrics.BOTTLENECK_PARTS (not "no actors"), a colon, why."""
    device, loading, waiting = _percent(shares.device, shares.loading, shares.waiting)
    fill, front_end = _percent(shares.fill, shares.front_end)
    environment, inference, blocked = _percent(shares.environment, shares.inference, shares.blocked)
    is_full = shares.fill >= _FULL
    if shares.device >= _BUSY or (is_full and shares.device >= shares.loading):
        return f"device: updates take {device} of the time, rollout storage is {fill} full"
    if is_full:
        return (
            f"batch assembly: storage is {fill} full, but learner threads load batches "
            f"{loading} of the time and updates take only {device}"
        )
    if shares.front_end >= _BUSY:
        return (
            f"batch assembly: the front end is busy {front_end} of the time taking unrolls in; "
            f"learner threads wait {waiting}"
        )
    if shares.blocked > max(shares.environment, shares.inference):
        return (
            f"network: actors wait {blocked} of their time for verdicts although storage is "
            f"only {fill} full"
        )
    part, much, other, rest = (
        ("environment", environment, inference, "inference")
        if shares.environment >= shares.inference
        else ("inference", inference, environment, "environments")
    )
    return (
        f"{part}: actors spend {much} of their time there ({rest} {other}, blocked {blocked}); "
        f"learner threads wait {waiting} of theirs"
    )


class BottleneckFinder:
    """Keeps smoothed shares of one run; owned by the controller's thread."""

    def __init__(self, num_learners: int) -> None:
        """Knows nothing yet.

        Args:
          num_learners: learner threads, over which loading and waiting are spread.
        """
        self._num_learners = num_learners
        self._shares: Shares | None = None

    def update(self, line: Mapping[str, float], front_end_busy: float) -> str:
        """Adds a line of metrics; returns the sentence, empty while nothing is known.

        Args:
          line: metrics by name; one without updates changes nothing.
          front_end_busy: share of the front end's time, 0 to 1.
        """
        if line.get(metrics.ACTORS_CONNECTED, 1) == 0:
            self._shares = None
            return "no actors: none is connected"
        if metrics.UPDATE_S in line:
            now = self._shares_of(line, front_end_busy)
            self._shares = now if self._shares is None else _mix(self._shares, now)
        return "" if self._shares is None else find_bottleneck(self._shares)

    def _shares_of(self, line: Mapping[str, float], front_end_busy: float) -> Shares:
        updates_per_s = line.get(metrics.UPDATES_PER_S, 0.0)
        per_thread = updates_per_s / self._num_learners
        actor_s = [
            line.get(name, 0.0)
            for name in (metrics.ENVIRONMENT_S, metrics.INFERENCE_S, metrics.BLOCKED_S)
        ]
        total_s = sum(actor_s) or 1.0
        return Shares(
            device=_clip(line[metrics.UPDATE_S] * updates_per_s),
            loading=_clip(line.get(metrics.LOAD_S, 0.0) * per_thread),
            waiting=_clip(line.get(metrics.BATCH_WAIT_S, 0.0) * per_thread),
            fill=_clip(line.get(metrics.QUEUE_FILL, 0.0)),
            front_end=_clip(front_end_busy),
            environment=_clip(actor_s[0] / total_s),
            inference=_clip(actor_s[1] / total_s),
            blocked=_clip(actor_s[2] / total_s),
        )


def _mix(old: Shares, new: Shares) -> Shares:
    return Shares(
        **{
            field.name: _KEEP * getattr(old, field.name) + (1.0 - _KEEP) * getattr(new, field.name)
            for field in dataclasses.fields(Shares)
        }
    )


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0) if share == share else 0.0


def _percent(*shares: float) -> tuple[str, ...]:
    return tuple(f"{100 * share:.0f} %" for share in shares)
