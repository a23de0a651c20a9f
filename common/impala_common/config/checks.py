"""Rules for single settings; each raises ConfigError with name, value and rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from impala_common.errors import ConfigError


def require(name: str, value: object, is_met: bool, rule: str, consequence: str = "") -> None:
    """Raises ConfigError unless `is_met`."""
    if not is_met:
        raise ConfigError(name, value, rule, consequence)


def require_positive(name: str, value: float) -> None:
    """Raises ConfigError unless `value` is finite and greater than 0."""
    require(name, value, math.isfinite(value) and value > 0, "greater than 0")


def require_at_least(name: str, value: float, low: float) -> None:
    """Raises ConfigError unless `value` is finite and at least `low`."""
    require(name, value, math.isfinite(value) and value >= low, f"at least {low}")


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raises ConfigError unless low <= value <= high."""
    require(name, value, low <= value <= high, f"in [{low}, {high}]")


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises ConfigError unless `value` is one of `allowed`."""
    require(name, value, value in allowed, "one of " + ", ".join(allowed))
