"""TensorSpec: one named tensor, without its time and batch dimensions.

The smallest piece of every specification (`impala_common.spec.specs`). No grpc, no torch.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

DTYPES: tuple[str, ...] = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64",
)  # fmt: skip
"""Names of the element types that may travel, as numpy spells them."""


IMAGE_AXES: tuple[str, ...] = ("HWC", "CHW", "SHW")
"""Orders of an image's dimensions: height, width, channels, stacked frames."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor, without its time and batch dimensions.

    Attributes:
      name: its name.
      shape: lengths of its dimensions.
      dtype: one of DTYPES.
      axes: order of its dimensions, one of IMAGE_AXES; "": not declared. Observation leaves of rank
        3 only.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes of one such tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize
