"""LearnerServicer: unpacks requests of `impala_rl.v1.LearnerService`, packs its responses.

Runs on the front end's event loop. Every method runs inside `translated`, which converts errors of
this project to gRPC status.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from impala_common.codec.specs import (
    pack_environment_options,
    pack_model_spec,
    pack_unroll_spec,
    unpack_environment_spec,
)
from impala_common.codec.tensor_specs import pack_tensor_spec
from impala_common.config import TrainConfig
from impala_common.errors import InvalidRequestError
from impala_common.rpc.limits import MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from impala_common.spec.specs import validate_same_model
from impala_rl.v1 import learner_pb2, learner_pb2_grpc
from impala_server.front_end.data_plane.push_stream import PushStream
from impala_server.front_end.data_plane.sessions import ActorSession, validate_actor_id
from impala_server.front_end.data_plane.weights_call import WeightsCall
from impala_server.front_end.learner_link import LearnerLink, OpenRun
from impala_server.front_end.listener.protocol_version import validate_protocol_version
from impala_server.front_end.listener.wire_errors import translated

_LOG = logging.getLogger(__name__)
_Context = grpc.aio.ServicerContext[Any, Any]


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """The data plane."""

    def __init__(self, config: TrainConfig, link: LearnerLink) -> None:
        """Serves the learner that `link` leads to."""
        self._config = config
        self._link = link

    async def GetConfig(  # noqa: N802
        self, request: learner_pb2.GetConfigRequest, context: _Context
    ) -> learner_pb2.GetConfigResponse:
        """Tells an actor how to make its environments."""
        async with translated(context):
            self._link.require_serving()
            return learner_pb2.GetConfigResponse(
                learner=run.header() if (run := self._link.run) else None,
                protocol_version=PROTOCOL_VERSION,
                environment_slot_count=self._config.environment.envs_per_actor,
                environment_options=pack_environment_options(self._config.environment),
            )
        raise AssertionError("unreachable: translated aborts")

    async def Register(  # noqa: N802
        self, request: learner_pb2.RegisterRequest, context: _Context
    ) -> learner_pb2.RegisterResponse:
        """Opens a session."""
        async with translated(context):
            validate_protocol_version(request.protocol_version)
            validate_actor_id(request.actor.actor_id)
            environment = unpack_environment_spec(request.environment)
            # Before the run is built for this actor's environment: a refused actor must not decide
            # it.
            validate_same_model(self._config.model.model, request.model[:256])
            run = await self._link.define(environment)
            self._link.require_environment(run, environment)
            self._require_fitting(request, run)
            actor = request.actor
            may_leave = request.follows_redirects and actor.actor_id not in run.sessions.banned
            if may_leave and (address := self._link.ranks.choose(actor.actor_id)):
                _LOG.info("actor %s is sent to the rank at %s", actor.actor_id, address)
                return learner_pb2.RegisterResponse(learner=run.header(), redirect_address=address)
            session = run.sessions.register(
                actor.actor_id,
                actor.actor_run_id,
                request.environment_slot_count,
                request.host[:64],
            )
            _LOG.info("actor %s registered (index %d)", session.actor_id, session.index)
            return self._registered(run, session)
        raise AssertionError("unreachable: translated aborts")

    async def GetWeights(  # noqa: N802
        self, request: learner_pb2.GetWeightsRequest, context: _Context
    ) -> None:
        """Sends the newest weights, in chunks."""
        async with translated(context):
            await WeightsCall(self._link, context).run(request)

    async def PushUnrolls(  # noqa: N802
        self, requests: AsyncIterator[learner_pb2.PushUnrollsRequest], context: _Context
    ) -> None:
        """Takes unrolls and answers with verdicts until the client leaves."""
        async with translated(context):
            await PushStream(self._link, context).run()

    def _require_fitting(self, request: learner_pb2.RegisterRequest, run: OpenRun) -> None:
        num_slots = request.environment_slot_count
        if not 1 <= num_slots <= run.max_unrolls_per_message:
            raise InvalidRequestError(
                f"environment_slot_count: expected 1 to {run.max_unrolls_per_message} (a message "
                f"must stay below {MAX_MESSAGE_BYTES >> 20} MiB), got {num_slots}"
            )
        batch_size = self._config.rollout.batch_size
        if self._config.job.lockstep and num_slots != batch_size:
            raise InvalidRequestError(
                f"environment_slot_count: expected batch_size ({batch_size}) in lockstep mode, "
                f"got {num_slots}"
            )

    def _registered(self, run: OpenRun, session: ActorSession) -> learner_pb2.RegisterResponse:
        return learner_pb2.RegisterResponse(
            learner=run.header(),
            session_epoch=session.epoch,
            actor_index=session.index,
            seed=run.sessions.seed_of(session),
            unroll=pack_unroll_spec(run.unroll),
            model=pack_model_spec(run.model),
            limits=learner_pb2.LearnerLimits(
                window=1 if self._config.job.lockstep else self._config.transport.window,
                max_unrolls_per_message=run.max_unrolls_per_message,
                max_message_bytes=MAX_MESSAGE_BYTES,
            ),
            is_lockstep=self._config.job.lockstep,
            weights=[pack_tensor_spec(spec) for spec in run.weights_specs],
            refreshes_weights_each_step=self._config.transport.weights_refresh == "step",
        )
