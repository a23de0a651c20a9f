"""One GetWeights call: waits for a newer version if asked, then streams it in chunks.

Runs on the front end's event loop, one object per call. All calls share the bytes
of a version.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from impala_common.rpc.limits import MAX_WEIGHTS_WAIT_S
from impala_rl.v1 import learner_pb2
from impala_server.front_end.data_plane.timed_write import write_in_time
from impala_server.front_end.data_plane.weights_transfer import require_deadline, send_weights
from impala_server.front_end.learner_link import LearnerLink


class WeightsCall:
    """The server's side of one call."""

    def __init__(self, link: LearnerLink, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Serves one client, through `context`."""
        self._link = link
        self._context = context

    async def run(self, request: learner_pb2.GetWeightsRequest) -> None:
        """Answers `request`.

        Raises:
          InvalidRequestError: the call has no deadline.
          StaleSessionError: the request names another learner life.
          LearnerUnavailableError: no weights yet, the learner stops, or too many transfers.
        """
        known = request.learner_run_id
        run = self._link.open_run_of(known) if known else self._link.open_run()
        require_deadline(self._context, "GetWeights")
        if request.min_version > 0:
            wait_s = request.max_wait.seconds + request.max_wait.nanos / 1e9
            await run.weights.wait_for(request.min_version, min(wait_s, MAX_WEIGHTS_WAIT_S))
            if run.weights.policy_version < request.min_version:
                self._link.require_serving()
        header = learner_pb2.WeightsHeader(learner=run.header())
        if request.HasField("have_version") and request.have_version >= run.weights.policy_version:
            header.is_not_modified = True
            await write_in_time(self._context, learner_pb2.GetWeightsResponse(header=header))
            return

        async def prepare() -> tuple[Any, Iterable[Any]]:
            weights = run.weights.newest()
            header.learner.policy_version = weights.policy_version
            header.total_bytes = weights.num_bytes
            header.digest = weights.digest
            return learner_pb2.GetWeightsResponse(header=header), weights.messages

        await send_weights(self._context, run.transfers, prepare)
