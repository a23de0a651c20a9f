"""HostBuffers: reusable host memory for snapshots.

Fresh memory costs a page fault for every page while the update lock is held, several times as much
as the copy itself; reused buffers cost it once. For tensors of a CUDA device they are pinned, so
that all copies run at the same time. Owned by the checkpoint thread: a copy is valid until the next
`copy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


class HostBuffers:
    """Buffers by group and name; allocated at first use."""

    def __init__(self) -> None:
        """Starts without buffers."""
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Array]]:
        """Returns copies of tensors by group and name, as arrays over the buffers."""
        devices: set[torch.device] = set()
        copied: dict[str, dict[str, Array]] = {}
        with torch.no_grad():
            for group, named in tensors.items():
                copied[group] = {}
                for name, tensor in named.items():
                    buffer = self._buffer(group, name, tensor)
                    buffer.copy_(tensor, non_blocking=True)
                    if tensor.device.type == "cuda":
                        devices.add(tensor.device)
                    copied[group][name] = buffer.numpy()
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        return copied

    def _buffer(self, group: str, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get((group, name))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(
                tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda"
            )
            self._buffers[group, name] = buffer
        return buffer
