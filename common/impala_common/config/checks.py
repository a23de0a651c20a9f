"""Rules for single settings; each raises ConfigError with name, value and rule."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from impala_common.errors import ConfigError

OBJECT_PREFIX = "object:"
"""Prefix of the names of environments and models that are Python objects of the parent."""

LONGEST_S = 1e7
"""Largest time that a setting may name: 115 days. Timers and messages take no time they cannot
hold."""

_OWN_MODEL = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_][\w.-]*", re.ASCII)


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


def require_time(name: str, value: float) -> None:
    """Raises ConfigError unless `value` is a time in seconds above 0 that timers take."""
    require(name, value, 0 < value <= LONGEST_S, f"greater than 0 and at most {LONGEST_S:g}")


def is_own_model(name: str) -> bool:
    """Returns whether `name` names an own network, "module:Class" or "object:Name"."""
    return _OWN_MODEL.fullmatch(name) is not None


def require_own_model(name: str, value: str) -> None:
    """Raises ConfigError unless `value` names an own network."""
    require(name, value, is_own_model(value), "module:Class, such as my_nets:Net")


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises ConfigError unless `value` is one of `allowed`."""
    require(name, value, value in allowed, "one of " + ", ".join(allowed))


def validate_device(device: str) -> None:
    """Raises ConfigError unless `device` is auto, cpu, cuda or cuda:N."""
    index = device.removeprefix("cuda:")
    is_known = device in ("auto", "cpu", "cuda") or (index != device and index.isdecimal())
    require("device", device, is_known, "auto, cpu, cuda or cuda:N")
