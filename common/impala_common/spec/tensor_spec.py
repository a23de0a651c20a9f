"""TensorSpec: one named tensor, without its time and batch dimensions.

The smallest piece of every specification (`impala_common.spec.specs`). No grpc, no torch.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np

DTYPES: tuple[str, ...] = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64",
)  # fmt: skip
"""Names of the element types that may travel, as numpy spells them."""


TensorRole = Literal["", "image_hwc", "image_chw", "action_mask"]
"""Not declared; an image with channels last, or first; a mask of legal actions, 0 for illegal."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor, without its time and batch dimensions.

    Attributes:
      name: unique within its list.
      shape: lengths of the dimensions.
      dtype: element type, as numpy spells it.
      role: what an observation leaf stands for, as the environment's adapter declares it; "" for
        every other tensor, and in runs that began before roles were declared (ADR 0033).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: TensorRole = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TensorSpec:  # Any: JSON
        """Rebuilds a specification from the JSON form of its fields."""
        return cls(data["name"], tuple(data["shape"]), data["dtype"], data.get("role", ""))

    @property
    def num_bytes(self) -> int:
        """Bytes of one such tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize
