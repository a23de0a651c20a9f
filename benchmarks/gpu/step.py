"""What a step of `make gpu` is: a function in a process of its own that emits rows of JSON.

A row is emitted as soon as it is known, so that a step that is killed loses no earlier one. With
`is_rehearsal` a step takes the same paths on a CPU, in sizes that take seconds; its figures mean
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from benchmarks.suite.section import Json

Emit = Callable[[Json], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What every step is told. Plain values only: it goes to its process as JSON."""

    is_rehearsal: bool
    """Whether sizes and times are those of a rehearsal, on the CPU."""
    limit_s: float
    """Seconds after which the process is ended."""
    words: tuple[str, ...] = ()
    """What this one of several like steps is to do; see the step's function."""

    @property
    def device(self) -> str:
        """Device that the step measures: cuda, in a rehearsal cpu."""
        return "cpu" if self.is_rehearsal else "cuda"

    def window_s(self, real_s: float) -> float:
        """Returns the seconds of a window: `real_s`, next to nothing in a rehearsal."""
        return 0.02 if self.is_rehearsal else real_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A row of the plan.

    Attributes:
      name: in gpu.json and for `--only`.
      function: MODULE:NAME of what runs, called with settings and `emit`.
      limit_s: most seconds it may take.
      words: `StepSettings.words`.
      takes_rest: whether it may use what all others leave over; then `limit_s` is kept for it.
    """

    name: str
    function: str
    limit_s: float
    words: tuple[str, ...] = ()
    takes_rest: bool = False
