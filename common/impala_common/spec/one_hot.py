"""OneHotLeaf: which integers an observation leaf of one-hot vectors is made of.

Part of an EnvironmentSpec, declared by whoever makes the observations, so that `predict` can take
an observation as the environment gives it. Networks and unrolls know only the leaf. numpy only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_common.errors import SpecMismatchError


@dataclasses.dataclass(frozen=True, slots=True)
class OneHotLeaf:
    """The integers of a Discrete or MultiDiscrete part of an observation.

    Attributes:
      name: of the leaf, which is float32 [sum(sizes)].
      shape: of the array of integers in the environment; () for a Discrete.
      starts: smallest value of each integer.
      sizes: number of values of each.
    """

    name: str
    shape: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> OneHotLeaf:  # Any: JSON
        """Rebuilds it from the JSON form of its fields."""
        shape, starts, sizes = (tuple(map(int, data[key])) for key in ("shape", "starts", "sizes"))
        return cls(str(data["name"]), shape, starts, sizes)

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns float32 [width] or [N, width] for integers [...] or [N, ...] of `shape`.

        Values of other types and shapes, such as one-hot vectors, are returned as they are.

        Raises:
          SpecMismatchError: an integer is outside its space.
        """
        is_batch = values.ndim == len(self.shape) + 1
        if values.dtype.kind not in "iub" or values.shape[is_batch:] != self.shape:
            return values
        rows = values.reshape(-1, len(self.sizes)).astype(np.int64)
        starts, sizes = np.array(self.starts, np.int64), np.array(self.sizes, np.int64)
        places = rows - starts
        if ((places < 0) | (places >= sizes)).any():
            first, last = starts.reshape(self.shape), (starts + sizes - 1).reshape(self.shape)
            raise SpecMismatchError(
                self.name, f"numbers from {first.tolist()} to {last.tolist()}", values.tolist()
            )
        encoded = np.zeros((len(rows), int(sizes.sum())), np.float32)
        np.put_along_axis(encoded, places + np.cumsum(sizes) - sizes, np.float32(1.0), axis=1)
        return encoded if is_batch else encoded[0]
