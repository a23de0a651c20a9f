"""Rewards and flags of a step: cast where that is unambiguous, else refused by name.

Environments return numbers of many types: Python's, numpy's, tensors, arrays of one element.
`as_rewards` and `as_flags` take those of a whole vector environment, `as_reward` and `as_flag`
those of one slot. Each returns at once what has the right type already. numpy only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_common.errors import SpecMismatchError

_FLOAT32 = np.dtype(np.float32)
_BOOL = np.dtype(np.bool_)


def as_rewards(values: Any, num_slots: int) -> NDArray[np.float32]:
    """Returns float32 [N] for the rewards of N slots.

    Raises:
      SpecMismatchError: they are not one real number for each slot.
    """
    if type(values) is np.ndarray and values.shape == (num_slots,):
        if values.dtype is _FLOAT32:
            return values
        if values.dtype.kind in "fiub":
            return values.astype(_FLOAT32)
    array = _as_array(values)
    if array is not None and array.dtype.kind == "O":
        array = _join([_as_number(one) for one in array.reshape(-1)])
    if array is None or array.size != num_slots or array.dtype.kind not in "fiub":
        raise _mismatch("reward", f"a number for each of {num_slots} slots, [{num_slots}]", values)
    _require_one_axis("reward", array, f"a number for each of {num_slots} slots, [{num_slots}]")
    return array.reshape(num_slots).astype(_FLOAT32)


def as_flags(name: str, values: Any, num_slots: int) -> NDArray[np.bool_]:
    """Returns bool [N] for a flag of N slots, terminated or truncated.

    Raises:
      SpecMismatchError: they are not one truth value for each slot: bool, or 0 and 1.
    """
    if type(values) is np.ndarray and values.dtype is _BOOL and values.shape == (num_slots,):
        return values
    expected = f"a bool for each of {num_slots} slots, [{num_slots}]"
    array = _as_array(values)
    if array is not None and array.dtype.kind == "O":
        array = _join([_as_number(one) for one in array.reshape(-1)])
    if array is None or array.size != num_slots or array.dtype.kind not in "fiub":
        raise _mismatch(name, expected, values)
    _require_one_axis(name, array, expected)
    array = array.reshape(num_slots)
    if array.dtype.kind != "b" and not np.isin(array, (0, 1)).all():
        raise _mismatch(name, expected, values)
    return array.astype(_BOOL)


def as_reward(value: Any) -> float:
    """Returns the reward of one slot as a float.

    Raises:
      SpecMismatchError: it is not one real number.
    """
    if type(value) is float:
        return value
    number = _as_number(value)
    if number is None:
        raise _mismatch("reward", "a number", value)
    return float(number)


def as_flag(name: str, value: Any) -> bool:
    """Returns a flag of one slot, terminated or truncated, as a bool.

    Raises:
      SpecMismatchError: it is not one truth value: a bool, 0 or 1.
    """
    if type(value) is bool:
        return value
    number = _as_number(value)
    if number is None or number not in (0, 1):
        raise _mismatch(name, "a bool", value)
    return bool(number)


def _as_array(values: Any) -> NDArray[Any] | None:
    """Returns an array of numbers or objects; None where there is no such array."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        return None  # numpy would take what lies under the mask
    try:
        if hasattr(values, "detach"):
            values = _detach(values)
        array = np.asarray(values)
    except Exception:  # ragged lists raise ValueError, foreign __array__ anything
        if not isinstance(values, list | tuple):
            return None
        array = np.empty(len(values), object)
        array[:] = [_as_number(one) for one in values]
    return array


def _detach(tensor: Any) -> Any:  # Any: a tensor of torch, which is not imported here
    """Returns a tensor of any device, layout and type, with or without gradient, as numpy's."""
    tensor = tensor.detach().cpu()
    if getattr(tensor, "is_sparse", False):
        tensor = tensor.to_dense()
    is_plain = not tensor.is_floating_point() or tensor.element_size() > 2
    return (tensor if is_plain else tensor.float()).numpy()  # numpy has no bfloat16


def _as_number(value: Any) -> float | int | bool | None:
    """Returns the only element of a scalar, array, tensor or list; None where there is none."""
    array = _as_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiubO":
        return None
    item: Any = array.reshape(())[()]
    if array.dtype.kind == "O":
        if isinstance(item, str | bytes | complex) or not hasattr(item, "__float__"):
            return None  # Decimal and Fraction are numbers; None and text are not
        try:
            item = float(item)
        except (TypeError, ValueError, OverflowError):
            return None
    number: float | int | bool = item.item() if isinstance(item, np.generic) else item
    return number


def _join(numbers: list[float | int | bool | None]) -> NDArray[Any] | None:
    return None if any(number is None for number in numbers) else np.array(numbers, np.float64)


def _require_one_axis(name: str, array: NDArray[Any], expected: str) -> None:
    """Raises SpecMismatchError for [2, 2] of 4 slots, whose order nobody can know."""
    if sum(size != 1 for size in array.shape) > 1:
        raise _mismatch(name, expected, array)


def _mismatch(name: str, expected: str, values: Any) -> SpecMismatchError:
    shape = getattr(values, "shape", None)
    kind = type(values).__name__
    got = " ".join(repr(values).split())
    if shape is not None and math.prod(shape) != 1:
        got = f"{getattr(values, 'dtype', kind)} {list(shape)}: {got}"
    return SpecMismatchError(f"{name} of the environment", expected, f"{kind} {got}"[:200])
