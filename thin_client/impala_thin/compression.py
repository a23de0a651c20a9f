"""Compressor: observations compressed with zstd, where that makes them smaller.

Uses the package zstandard where it is installed (extra `zstd` of impala-rl-thin; part of
impala-rl); without it, messages go as they are.
"""

from __future__ import annotations

import importlib
from typing import Any

from impala_rl.v1 import policy_pb2, tensor_pb2

_LEVEL = -1
_MIN_BYTES = 4096
"""Least size of a message for compression; below, it costs more time than it saves."""
_MIN_RATIO = 1.2
"""Compressed leaves are sent only if they are smaller by at least this factor."""
_REST = 100
"""Messages that are not tried after one that did not shrink."""


class Compressor:
    """Compresses the messages of one client. For one thread at a time."""

    def __init__(self, *, is_on: bool = True) -> None:
        """Compresses nothing if it is off, or without zstandard."""
        self._compressor = _make_compressor() if is_on else None
        self._num_resting = 0

    def compress(self, request: policy_pb2.PlayRequest) -> None:
        """Compresses the leaves of observations in place, if that pays.

        Args:
          request: observations that are not compressed.
        """
        if self._compressor is None:
            return
        leaves = list(request.observations.leaves)
        num_bytes = sum(map(len, leaves))
        if num_bytes < _MIN_BYTES:
            return
        if self._num_resting:
            self._num_resting -= 1
            return
        squeezed = [self._compressor.compress(leaf) for leaf in leaves]
        if sum(map(len, squeezed)) * _MIN_RATIO > num_bytes:
            self._num_resting = _REST
            return
        request.observations.leaves[:] = squeezed
        request.observations.codec = tensor_pb2.CODEC_ZSTD


def _make_compressor() -> Any | None:  # Any: zstandard.ZstdCompressor, which need not be there
    try:
        return importlib.import_module("zstandard").ZstdCompressor(level=_LEVEL)
    except ImportError:
        return None
