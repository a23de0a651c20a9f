"""WeightsCache: the published weights, read and digested once per version.

Owned by the front end's event loop. All callers share the bytes of one
version. Callers that want a version which does not exist yet wait until the learner link reports
that the learner may have published.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from impala_common.rpc.limits import WEIGHTS_CHUNK_BYTES
from impala_rl.v1 import learner_pb2
from impala_server.storage.weights_block import WeightsReader


class ServedWeights(NamedTuple):
    """One version, ready to be sent.

    Attributes:
      policy_version: its number.
      messages: GetWeightsResponse with a chunk of at most 1 MiB each, serialised once for all
        callers.
      num_bytes: of the snapshot.
      digest: xxh3-64 of the snapshot.
    """

    policy_version: int
    messages: tuple[bytes, ...]
    num_bytes: int
    digest: int


class WeightsCache:
    """The newest weights."""

    def __init__(self, reader: WeightsReader) -> None:
        """Serves the versions that `reader` reads."""
        self._reader = reader
        self._served: ServedWeights | None = None
        self._advanced = asyncio.Condition()
        self._seen_version = -1
        self._is_closed = False

    @property
    def policy_version(self) -> int:
        """Version of the newest published weights."""
        return self._reader.policy_version

    @property
    def trained_steps(self) -> int:
        """Agent steps trained on when they were published."""
        return self._reader.trained_steps

    def newest(self) -> ServedWeights:
        """Returns the newest weights; reads them only if the cached version is older."""
        if self._served is None or self._served.policy_version < self._reader.policy_version:
            # Free it first: one version in memory is enough; transfers under way keep theirs.
            self._served = None
            version, pieces, digest = self._reader.read(WEIGHTS_CHUNK_BYTES)
            num_bytes = sum(map(len, pieces))
            for place, piece in enumerate(pieces):  # in place, for the same reason
                message = learner_pb2.GetWeightsResponse(chunk=piece)
                pieces[place] = message.SerializeToString()
            self._served = ServedWeights(version, tuple(pieces), num_bytes, digest)
        return self._served

    async def wait_for(self, policy_version: int, timeout_s: float) -> None:
        """Returns when `policy_version` is published, publishing ends, or after `timeout_s`."""
        if self.policy_version >= policy_version:
            return
        try:
            async with asyncio.timeout(timeout_s), self._advanced:
                await self._advanced.wait_for(
                    lambda: self.policy_version >= policy_version or self._is_closed
                )
        except TimeoutError:
            return

    async def notify(self) -> None:
        """Wakes waiting calls if there is a new version."""
        if self.policy_version == self._seen_version:
            return
        self._seen_version = self.policy_version
        async with self._advanced:
            self._advanced.notify_all()

    async def close(self) -> None:
        """Wakes all waiting calls: the learner drains and publishes no more versions."""
        self._is_closed = True
        async with self._advanced:
            self._advanced.notify_all()
