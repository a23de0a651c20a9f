"""Rules for single settings; each raises ConfigError with name, value and rule."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from impala_common.errors import ConfigError
from impala_common.process.utf8 import is_utf8
from impala_common.rpc.limits import LONGEST_S

OBJECT_PREFIX = "object:"
"""Prefix of the names of environments and models that are Python objects of the parent."""

LARGEST_WHOLE = 2**63 - 1
"""Largest whole number: what files and messages hold."""
MAX_THREADS = 1024
"""Most threads of one process that a setting may ask for."""

_OWN_MODEL = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_][\w.-]*", re.ASCII)


def require(name: str, value: object, is_met: bool, rule: str, consequence: str = "") -> None:
    """Raises ConfigError unless `is_met`."""
    if not is_met:
        raise ConfigError(name, value, rule, consequence)


def require_positive(name: str, value: float) -> None:
    """Raises ConfigError unless `value` is finite and greater than 0."""
    require(name, value, _is_finite(value) and value > 0, "greater than 0")


def require_at_least(name: str, value: float, low: float) -> None:
    """Raises ConfigError unless `value` is finite and at least `low`."""
    require(name, value, _is_finite(value) and value >= low, f"at least {low}")


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # isfinite() raises for large integers


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raises ConfigError unless low <= value <= high."""
    require(name, value, low <= value <= high, f"in [{low}, {high}]")


def require_time(name: str, value: float) -> None:
    """Raises ConfigError unless `value` is a time in seconds above 0 that timers take."""
    require(name, value, 0 < value <= LONGEST_S, f"greater than 0 and at most {LONGEST_S:g}")


def require_held(settings: Any, prefix: str = "") -> None:  # Any: a dataclass of settings
    """Raises ConfigError for a setting that files, messages and timers do not hold.

    Whole numbers have 64 bits, times (names in _s) LONGEST_S at most, and texts are UTF-8.

    Args:
      settings: all its fields are checked.
      prefix: "--" where it is a command line: fields then have the names of options.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        name = prefix + field.name.replace("_", "-") if prefix else field.name
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):
                require(name, one, is_utf8(one), "UTF-8")
            elif isinstance(one, int):
                require(name, one, abs(one) <= LARGEST_WHOLE, "a whole number of 64 bits")
            elif isinstance(one, float) and field.name.endswith("_s"):
                require(name, one, one <= LONGEST_S, f"at most {LONGEST_S:g}")


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
