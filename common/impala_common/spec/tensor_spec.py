"""TensorSpec: one named tensor, without its time and batch dimensions.

The smallest piece of every specification (`impala_common.spec.specs`). No grpc, no torch.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

DTYPES: tuple[str, ...] = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64",
)  # fmt: skip
"""Names of the element types that may travel, as numpy spells them."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor, without its time and batch dimensions."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TensorSpec:  # Any: JSON
        """Rebuilds a specification from the JSON form of its fields."""
        return cls(data["name"], tuple(data["shape"]), data["dtype"])

    @property
    def num_bytes(self) -> int:
        """Bytes of one such tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize
