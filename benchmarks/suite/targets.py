"""What the figures are held against: targets.toml, which people edit.

A target names a figure of a section and the least or most it should be, what others reach, and,
where it is missed, why. Reasons are written by hand; figures never are.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path

_PATH = Path(__file__).with_name("targets.toml")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One line of the table of targets.

    Attributes:
      section: whose figure it is.
      figure: its name, as `figures` of the section has it.
      what: for people.
      on: which machine the target is for.
      at_least: lower bound, or None.
      at_most: upper bound, or None.
      form: how numbers look, a format of Python's.
      others: what other systems reach, for people.
      reason: why it is missed; "" where nobody has looked into it.
    """

    section: str
    figure: str
    what: str
    on: str = "2 cores"
    at_least: float | None = None
    at_most: float | None = None
    form: str = ",.0f"
    others: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        """Checks that there is one bound."""
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{self.section}/{self.figure}: one of at_least and at_most")

    def judge(self, figures: Mapping[str, Mapping[str, float]]) -> Judgement:
        """Returns how the measured figure stands to the target.

        Args:
          figures: section -> figure -> value; what was not measured is not in it.
        """
        value = figures.get(self.section, {}).get(self.figure)
        if value is None:
            return Judgement(None, None)
        if self.at_least is not None:
            return Judgement(value, value / self.at_least)
        assert self.at_most is not None
        return Judgement(value, self.at_most / value if value else float("inf"))


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A figure beside its target.

    Attributes:
      value: the figure; None: not measured.
      ratio: 1 or more is met, for lower and upper bounds alike.
    """

    value: float | None
    ratio: float | None

    @property
    def is_met(self) -> bool:
        """Whether the figure was measured and meets its target."""
        return self.ratio is not None and self.ratio >= 1.0


def load_targets() -> list[Target]:
    """Returns all targets, in the order of the file."""
    return [Target(**row) for row in tomllib.loads(_PATH.read_text())["target"]]
