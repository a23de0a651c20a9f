"""Parameters of training that may be set while it runs: one table, with bounds and meaning.

Owned by the controller's thread; pure values, no torch. A parameter is a
setting of the run under its own name: setting it makes a new TrainConfig, which
the learner takes over between two updates.

Learning rate and schedule: `learning_rate` is the schedule's value at step 0,
set or configured. With the linear schedule the rate of an update is
learning_rate x (1 - trained_steps / total_steps); with a constant one it is
learning_rate. So a value set half-way through a linear run is applied at half.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from typing import Any, NamedTuple

from impala_common.config import TrainConfig
from impala_common.config.toml_io import NONE
from impala_common.errors import ConfigError, InvalidRequestError, NotFoundError
from impala_common.process.logs import printable

_LOG = logging.getLogger(__name__)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_MAX_LENGTH = 40

Value = float | int | None


class Parameter(NamedTuple):
    """One row of the table.

    Attributes:
      name: of the setting.
      section: of TrainConfig that holds it.
      low: smallest value.
      high: largest value.
      meaning: one sentence for the list of parameters.
      is_whole: whether the value must be a whole number.
      is_above_low: whether `low` itself is excluded.
      may_be_none: whether "none" is a value.
    """

    name: str
    section: str
    low: float
    high: float
    meaning: str
    is_whole: bool = False
    is_above_low: bool = False
    may_be_none: bool = False

    @property
    def bounds(self) -> str:
        """The bounds as text."""
        first = f"above {self.low:g}, at most" if self.is_above_low else f"{self.low:g} to"
        whole = "a whole number, " if self.is_whole else ""
        return f"{whole}{first} {self.high:,.0f}" + (f", or {NONE}" if self.may_be_none else "")

    def unpack(self, text: str) -> Value:
        """Parses `text`.

        Raises:
          InvalidRequestError: not a number, or outside the bounds.
        """
        stripped = text.strip().lower() if len(text) <= _MAX_LENGTH else ""
        if self.may_be_none and stripped == NONE:
            return None
        value = float(stripped) if _NUMBER.fullmatch(stripped) else math.nan
        is_within = self.low <= value <= self.high and not (self.is_above_low and value == self.low)
        if not is_within or (self.is_whole and value != int(value)):
            raise InvalidRequestError(
                f"{self.name}: expected {self.bounds}, got '{printable(text, _MAX_LENGTH)}'"
            )
        return int(value) if self.is_whole else value


def _clip(name: str, what: str) -> Parameter:
    return Parameter(name, "loss", 0.0, 1e6, what, is_above_low=True, may_be_none=True)


TABLE: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            "learning_rate",
            "optimizer",
            0.0,
            1.0,
            "learning rate at step 0 of the schedule",
            is_above_low=True,
        ),
        Parameter("entropy_cost", "loss", 0.0, 100.0, "weight of the entropy bonus"),
        Parameter("entropy_floor", "loss", 0.0, 1.0, "share of entropy below which it weighs more"),
        Parameter("entropy_floor_cost", "loss", 0.0, 100.0, "weight of entropy below its floor"),
        Parameter("baseline_cost", "loss", 0.0, 100.0, "weight of the value loss"),
        Parameter("discount", "loss", 0.0, 1.0, "discount per agent step"),
        _clip("clip_rho_threshold", "clip of importance ratios in the TD error"),
        _clip("clip_pg_rho_threshold", "clip of importance ratios in the policy gradient"),
        _clip("clip_c_threshold", "clip of the trace coefficients, at most clip_rho_threshold"),
        Parameter("vtrace_lambda", "loss", 0.0, 1.0, "lambda of V-trace"),
        Parameter(
            "max_grad_norm", "optimizer", 0.0, 1e6, "largest global gradient norm; 0: unlimited"
        ),
        Parameter("passes", "reuse", 1, 1000, "passes over each batch", is_whole=True),
        Parameter(
            "surrogate_clip",
            "reuse",
            0.0,
            1e6,
            "clip of the ratio in the surrogate; 0: V-trace's loss",
        ),
        Parameter(
            "kl_stop", "reuse", 0.0, 1e6, "KL divergence that ends the passes over a batch; 0: none"
        ),
        Parameter(
            "max_policy_lag",
            "rollout",
            0,
            1_000_000,
            "updates an arriving unroll may lag behind; 0: unlimited",
            is_whole=True,
        ),
        Parameter(
            "total_steps",
            "job",
            1,
            10**15,
            "agent steps at which the run ends, more than trained already",
            is_whole=True,
        ),
    )
}
"""Every parameter by name."""


class ParameterTable:
    """The present values, and the settings that follow from them."""

    def __init__(self, config: TrainConfig) -> None:
        """Starts with the run's settings."""
        self._configured = config
        self.config = config

    def value_of(self, name: str) -> Value:
        """Returns the present value."""
        value: Value = getattr(getattr(self.config, TABLE[name].section), name)
        return value

    def set(self, name: str, text: str, trained_steps: int) -> Value:
        """Sets a parameter, replaces `config` by a new one and returns the value before.

        Raises:
          NotFoundError: no parameter has that name.
          InvalidRequestError: the value is outside its bounds, or does not fit the others.
        """
        if name not in TABLE:
            raise NotFoundError(
                f"no parameter '{printable(name, 64)}'; there are: {', '.join(TABLE)}"
            )
        value = TABLE[name].unpack(text)
        if name == "total_steps" and value is not None and value <= trained_steps:
            raise InvalidRequestError(
                f"total_steps: expected more than the {trained_steps} trained already, got "
                f"{value}; to end the run, shut it down"
            )
        before = self.value_of(name)
        self._replace({name: value})
        return before

    def to_json(self) -> list[dict[str, str]]:
        """Returns all parameters, for the administrator."""
        return [
            {
                "name": parameter.name,
                "value": show(self.value_of(parameter.name)),
                "configured_value": show(self._configured_value(parameter.name)),
                "bounds": parameter.bounds,
                "meaning": parameter.meaning,
            }
            for parameter in TABLE.values()
        ]

    def export(self) -> dict[str, dict[str, Value]]:
        """Returns parameters that were set, for a checkpoint: value and the setting it replaced."""
        return {
            name: {"value": self.value_of(name), "configured": self._configured_value(name)}
            for name in TABLE
            if self.value_of(name) != self._configured_value(name)
        }

    def restore(self, exported: Any) -> None:  # Any: JSON from a checkpoint
        """Sets the parameters that `export` returned.

        A setting that was changed on the command line since then wins.
        """
        values = {}
        for name, entry in (exported or {}).items():
            if name not in TABLE:
                continue
            if entry["configured"] == self._configured_value(name):
                values[name] = entry["value"]
                _LOG.info("%s is %s, as it was set before", name, show(entry["value"]))
            else:
                _LOG.warning(
                    "%s was set to %s before, but the settings say %s now: that holds",
                    name,
                    show(entry["value"]),
                    show(self._configured_value(name)),
                )
        if values:
            self._replace(values)

    def _configured_value(self, name: str) -> Value:
        value: Value = getattr(getattr(self._configured, TABLE[name].section), name)
        return value

    def _replace(self, values: dict[str, Value]) -> None:
        by_section: dict[str, dict[str, Value]] = {}
        for name, value in values.items():
            by_section.setdefault(TABLE[name].section, {})[name] = value
        try:
            sections: dict[str, Any] = {  # Any: dataclasses of different types
                section: dataclasses.replace(getattr(self.config, section), **changes)
                for section, changes in by_section.items()
            }
            self.config = dataclasses.replace(self.config, **sections)
        except ConfigError as error:
            raise InvalidRequestError(str(error)) from error


def show(value: Value) -> str:
    """Returns a value as text that `Parameter.unpack` reads back the same."""
    return NONE if value is None else repr(value)
