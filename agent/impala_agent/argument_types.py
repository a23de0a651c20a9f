"""as_kind and as_count: convert a caller's value to the plain Python type of a setting.

Accepts numpy's numbers, whole floats (1e6) and torch devices; refuses other values early, with the
argument's name.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch

from impala_common.config.checks import require_positive
from impala_common.errors import ConfigError

_RULES = {bool: "True or False", int: "a whole number", float: "a number", str: "a string"}


def as_kind(name: str, value: object, kind: type) -> Any:  # Any: of type `kind`
    """Returns `value` as a `kind`, which is bool, int, float or str.

    Raises:
      ConfigError: it cannot be converted without loss.
    """
    if isinstance(value, bool | np.bool_):
        if kind is bool:
            return bool(value)
    elif isinstance(value, numbers.Real):
        number = float(value)
        if kind is float:
            return number
        if kind is int and number.is_integer():
            return round(value)
    elif kind is str and isinstance(value, str | torch.device):
        return str(value)
    raise ConfigError(name, value, _RULES[kind])


def as_count(name: str, value: object) -> int:
    """Returns `value` as a whole number that is at least 1; raises ConfigError."""
    count: int = as_kind(name, value, int)
    require_positive(name, count)
    return count
