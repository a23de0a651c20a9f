"""Checks and casts the rewards and flags that an environment returns.

Unambiguous values are cast: lists, arrays of 0 and 1, `[N, 1]`, arrays of one element, torch
tensors on the CPU. Any other value raises SpecMismatchError with the name of the reward or flag.
Called for every step, by the adapters for all slots and by SlotGuard for one; numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_common.errors import SpecMismatchError

_BOOL = np.dtype(np.bool_)
_FLOAT32 = np.dtype(np.float32)
_NUMBERS = "biuf"  # kinds of numpy dtypes: bool, signed, unsigned, float


def clean_rewards(values: Any, num_slots: int) -> NDArray[np.float32]:
    """Returns rewards of all slots as float32 [N].

    Raises:
      SpecMismatchError: they are not one number for each slot.
    """
    if type(values) is np.ndarray and values.shape == (num_slots,) and values.dtype.kind in "f":
        return values if values.dtype is _FLOAT32 else values.astype(_FLOAT32)
    array = _as_numbers("rewards", values, f"{num_slots} numbers")
    return _as_row("rewards", array, num_slots, values).astype(_FLOAT32)


def clean_flags(name: str, values: Any, num_slots: int) -> NDArray[np.bool_]:
    """Returns flags of all slots as bool [N].

    Args:
      name: "terminated" or "truncated".
      values: the environment's return value.
      num_slots: N.

    Raises:
      SpecMismatchError: they are not one flag for each slot.
    """
    if type(values) is np.ndarray and values.dtype is _BOOL and values.shape == (num_slots,):
        return values
    array = _as_numbers(name, values, f"{num_slots} flags, bool or 0 and 1")
    row = _as_row(name, array, num_slots, values)
    return _as_bool(name, row, values)


def clean_reward(value: Any) -> float:
    """Returns the reward of one slot.

    Raises:
      SpecMismatchError: it is not one number.
    """
    array = _as_numbers("reward", value, "a number")
    return float(_as_row("reward", array, 1, value)[0])


def clean_flag(name: str, value: Any) -> bool:
    """Returns a flag of one slot.

    Args:
      name: "terminated" or "truncated".
      value: the environment's return value.

    Raises:
      SpecMismatchError: it is not one flag.
    """
    array = _as_numbers(name, value, "a flag, bool or 0 or 1")
    return bool(_as_bool(name, _as_row(name, array, 1, value), value)[0])


def _as_numbers(name: str, values: Any, expected: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except Exception as error:  # converting an unknown class may raise any error
        raise _mismatch(name, expected, f"{type(values).__name__}: {error}") from error
    if array.dtype.kind not in _NUMBERS:
        raise _mismatch(name, expected, values)
    return array


def _as_row(name: str, array: NDArray[Any], num_slots: int, values: Any) -> NDArray[Any]:
    """Returns the array as [N]; accepts [N, 1], [1, N], and [] for one slot."""
    num_long = sum(length != 1 for length in array.shape)
    if array.size != num_slots or num_long > 1:
        raise _mismatch(name, f"shape ({num_slots},)", f"shape {array.shape} ({values!r:.60})")
    return array.reshape(num_slots)


def _as_bool(name: str, row: NDArray[Any], values: Any) -> NDArray[np.bool_]:
    if row.dtype is not _BOOL and not bool(((row == 0) | (row == 1)).all()):
        raise _mismatch(name, "bool, or 0 and 1", values)
    return row.astype(np.bool_)


def _mismatch(name: str, expected: object, actual: object) -> SpecMismatchError:
    return SpecMismatchError(f"{name} of the environment's step", expected, f"{actual!r:.80}")
