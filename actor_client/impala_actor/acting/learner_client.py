"""Calls to the learner: the only user of generated stubs on this side.

Safe for several threads. Failed calls raise errors of this project. Idempotent calls are repeated
with jittered backoff while the learner cannot be reached; streams of unrolls are not (the sender
resends unanswered messages).
"""

from __future__ import annotations

import functools
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

import grpc
import tenacity
from google.protobuf import duration_pb2

from impala_common.codec.response_bounds import checked_response, require_unroll_size
from impala_common.codec.specs import (
    pack_environment_spec,
    unpack_model_spec,
    unpack_unroll_spec,
)
from impala_common.codec.tensor_specs import unpack_tensor_spec
from impala_common.codec.weights_transfer import assemble_weights, max_snapshot_bytes
from impala_common.config import EnvironmentConfig
from impala_common.errors import (
    DamagedRequestError,
    InvalidResponseError,
    LearnerUnavailableError,
    StaleSessionError,
)
from impala_common.process.heartbeat import Heartbeat
from impala_common.rpc.addresses import is_address, is_unix
from impala_common.rpc.channel import make_channel
from impala_common.rpc.errors import error_from
from impala_common.rpc.limits import (
    MAX_WEIGHTS_WAIT_S,
    PROTOCOL_VERSION,
    UNARY_DEADLINE_S,
    WEIGHTS_DEADLINE_S,
)
from impala_common.rpc.proxies import describe_proxy
from impala_common.rpc.security import ClientSecurity
from impala_common.rpc.tls_probe import find_tls_error
from impala_common.spec.specs import (
    EnvironmentSpec,
    ModelSpec,
    TensorSpec,
    UnrollSpec,
    validate_same_model,
)
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc

_LOG = logging.getLogger(__name__)
_REMIND_S = 10.0
_MAX_DAMAGED = 5
_AWAY_S = 5.0  # how long a rank that this actor was sent to is tried
_T = TypeVar("_T")


class Session(NamedTuple):
    """The learner's answer to Register."""

    actor: header_pb2.ActorHeader
    learner_run_id: int
    actor_index: int
    seed: int
    unroll: UnrollSpec
    model: ModelSpec
    window: int
    max_unrolls: int
    is_lockstep: bool
    refreshes_weights_each_step: bool
    weights: tuple[TensorSpec, ...]


class LearnerDefaults(NamedTuple):
    """The learner's settings of environments."""

    num_slots: int
    environment: EnvironmentConfig


class Weights(NamedTuple):
    """One version of the weights as received, with a verified digest."""

    policy_version: int
    data: bytes


class LearnerClient:
    """A connection to one learner address."""

    def __init__(
        self,
        address: str,
        actor_id: str,
        connect_timeout_s: float = 0.0,
        stop: threading.Event | None = None,
        security: ClientSecurity | None = None,
    ) -> None:
        """Connects when first used.

        Args:
          address: HOST:PORT or unix:PATH.
          actor_id: this actor's name.
          connect_timeout_s: seconds to try while the learner cannot be reached; 0: for ever.
          stop: ends all waiting when set.
          security: TLS and token; default: neither.

        Raises:
          ConfigError: `security` names a file that cannot be used.
        """
        self.address = self._first_address = address
        self.actor_id = actor_id
        self.connect_timeout_s = connect_timeout_s
        self.stop = stop or threading.Event()
        self.heartbeat = Heartbeat()
        self._reminded_s = 0.0
        self._actor = header_pb2.ActorHeader(actor_id=actor_id, actor_run_id=secrets.randbits(64))
        self._security = security or ClientSecurity()
        self._channel = make_channel(address, self._security)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def get_defaults(self) -> LearnerDefaults:
        """Returns the learner's settings of environments; waits for the learner."""
        request = learner_pb2.GetConfigRequest(actor=self._actor, protocol_version=PROTOCOL_VERSION)
        response = checked_response(
            self._patiently(lambda: self._stub.GetConfig(request, timeout=UNARY_DEADLINE_S))
        )
        options = response.environment_options
        sticky = "atari_sticky_action_probability"
        environment = EnvironmentConfig(
            atari_frame_skip=options.atari_frame_skip,
            atari_frame_stack=options.atari_frame_stack,
            atari_episodic_life=options.atari_episodic_life,
            atari_fire_reset=options.atari_fire_reset,
            atari_noop_max=options.atari_noop_max,
            atari_sticky_action_probability=(
                round(options.atari_sticky_action_probability, 6)
                if options.HasField(sticky)
                else None
            ),
        )
        return LearnerDefaults(response.environment_slot_count, environment)

    def register(self, environment: EnvironmentSpec, num_slots: int, model: str = "") -> Session:
        """Opens a session; waits for the learner.

        Args:
          environment: specification of this actor's environment.
          num_slots: N.
          model: name of the own network that this actor was started with; "" for none.

        Raises:
          SpecMismatchError: the run has another environment or another network.
          InvalidResponseError: the learner's answer breaks the protocol.
          LearnerUnavailableError: not reachable within connect_timeout_s.
        """
        self._move_to(self._first_address)
        request = learner_pb2.RegisterRequest(
            actor=self._actor,
            protocol_version=PROTOCOL_VERSION,
            environment=pack_environment_spec(environment),
            environment_slot_count=num_slots,
            host=socket.gethostname()[:64],
            model=model,
            follows_redirects=True,
        )
        response = self._register(request)
        if response.redirect_address:
            _LOG.info("the learner's rank at %s takes this actor", response.redirect_address)
            self._move_to(response.redirect_address)
            request.follows_redirects = False
            response = self._register(request)
        # Checked here as well: the learner's answer must never decide which code is imported.
        validate_same_model(response.model.name, model)
        actor = header_pb2.ActorHeader()
        actor.CopyFrom(self._actor)
        actor.session_epoch = response.session_epoch
        unroll = unpack_unroll_spec(response.unroll, environment)
        require_unroll_size(unroll.num_bytes, num_slots)
        return Session(
            actor=actor,
            learner_run_id=response.learner.learner_run_id,
            actor_index=response.actor_index,
            seed=response.seed,
            unroll=unroll,
            model=unpack_model_spec(response.model),
            window=response.limits.window,
            max_unrolls=response.limits.max_unrolls_per_message,
            is_lockstep=response.is_lockstep,
            refreshes_weights_each_step=response.refreshes_weights_each_step,
            weights=tuple(unpack_tensor_spec(spec) for spec in response.weights),
        )

    def _register(self, request: learner_pb2.RegisterRequest) -> learner_pb2.RegisterResponse:
        response: learner_pb2.RegisterResponse = self._patiently(
            lambda: self._stub.Register(request, timeout=4 * UNARY_DEADLINE_S)
        )
        return checked_response(response)

    def _move_to(self, address: str) -> None:
        """Makes all further calls at `address`; does nothing where they are made there already.

        Raises:
          InvalidResponseError: the learner named something else than HOST:PORT.
        """
        if address == self.address:
            return
        if (is_unix(address) and not is_unix(self._first_address)) or not is_address(address):
            raise InvalidResponseError(
                f"redirect_address: expected HOST:PORT, got {address[:80]!r}"
            )
        self._channel.close()
        self.address = address
        self._channel = make_channel(address, self._security)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def get_weights(
        self, session: Session, have_version: int | None, min_version: int = 0
    ) -> Weights | None:
        """Returns the newest weights, or None if `have_version` is the newest.

        Args:
          session: names the learner life.
          have_version: version that the caller has, None for none.
          min_version: version to wait for, for up to MAX_WEIGHTS_WAIT_S.

        Raises:
          StaleSessionError: the learner was restarted.
          LearnerUnavailableError: the transfer failed.
        """
        request = learner_pb2.GetWeightsRequest(
            learner_run_id=session.learner_run_id,
            have_version=have_version,
            min_version=min_version,
            max_wait=duration_pb2.Duration(seconds=int(MAX_WEIGHTS_WAIT_S)),
        )
        try:
            responses = self._stub.GetWeights(request, timeout=WEIGHTS_DEADLINE_S)
            try:
                header, data = assemble_weights(
                    map(checked_response, responses), max_snapshot_bytes(session.weights)
                )
            finally:
                responses.cancel()  # unread messages must not stay in the connection
        except grpc.RpcError as error:
            raise error_from(error) from error
        if data is None:
            return None
        if header.learner.learner_run_id != session.learner_run_id:
            raise StaleSessionError("the learner was restarted: register again")
        return Weights(header.learner.policy_version, data)

    def push(
        self, requests: Iterator[learner_pb2.PushUnrollsRequest]
    ) -> Any:  # Any: a grpc.Call that iterates over PushUnrollsResponse
        """Opens a stream of unrolls; iterating the answers raises grpc.RpcError."""
        return self._stub.PushUnrolls(requests)

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._channel.close()

    def retrying(
        self, timeout_s: float = 0.0, is_wanted: Callable[[], bool] = lambda: True
    ) -> tenacity.Retrying:
        """Returns the retry policy for work that needs the learner.

        It tries again after LearnerUnavailableError, and a few times after DamagedRequestError,
        with jittered waits, until `stop` is set or `connect_timeout_s` is over, and then raises the
        last error. If TLS prevents the connection it raises TlsError at once: waiting would not
        help.

        Args:
          timeout_s: a further limit for this work; 0: none.
          is_wanted: returns whether to try once more.
        """
        give_up: tenacity.stop.stop_base = tenacity.stop_when_event_set(self.stop)
        give_up = give_up | _StopUnless(is_wanted)
        away_s = 0.0 if self.address == self._first_address else _AWAY_S
        limit_s = min(filter(None, (self.connect_timeout_s, timeout_s, away_s)), default=math.inf)
        give_up = give_up | tenacity.stop_after_delay(limit_s)
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(LearnerUnavailableError) | _RetryDamaged(),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=2.0),
            stop=give_up,
            sleep=tenacity.sleep_using_event(self.stop),
            before_sleep=self._remind,
            retry_error_callback=functools.partial(self._give_up, limit_s, is_wanted),
        )

    def _patiently(
        self,
        call: Callable[[], _T],
        timeout_s: float = 0.0,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> _T:
        """Makes a call, and repeats it while the learner cannot be reached; see `retrying`."""

        def attempt() -> _T:
            try:
                return call()
            except grpc.RpcError as error:
                raise error_from(error) from error

        return self.retrying(timeout_s, is_wanted)(attempt)

    def _give_up(
        self, limit_s: float, is_wanted: Callable[[], bool], state: tenacity.RetryCallState
    ) -> NoReturn:
        """Raises the error of the last attempt."""
        error = state.outcome.exception() if state.outcome is not None else None
        assert error is not None
        if self.stop.is_set() or not is_wanted():
            raise error
        if self.address != self._first_address:
            raise StaleSessionError(
                f"the learner rank at {self.address} cannot be reached: back to "
                f"{self._first_address} ({error})"
            ) from error
        raise LearnerUnavailableError(
            f"no learner at {self.address}{describe_proxy(self.address)} within {limit_s:g} s: "
            f"{error}"
        ) from error

    def _remind(self, state: tenacity.RetryCallState) -> None:
        """Logs the wait and probes for its reason, at the first failure and every ten seconds."""
        self.heartbeat.beat()
        now_s = time.monotonic()
        if state.attempt_number == 1 or now_s - self._reminded_s >= _REMIND_S:
            self._reminded_s = now_s
            if (tls_error := find_tls_error(self.address, self._security)) is not None:
                raise tls_error
            error = state.outcome.exception() if state.outcome is not None else None
            way = describe_proxy(self.address)
            _LOG.warning("waiting for the learner at %s%s: %s", self.address, way, error)


class _RetryDamaged(tenacity.retry_base):
    """Allows a few attempts after a damaged request; the damage may be systematic."""

    def __init__(self) -> None:
        self._num_left = _MAX_DAMAGED

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome is not None else None
        self._num_left -= isinstance(error, DamagedRequestError)
        return isinstance(error, DamagedRequestError) and self._num_left >= 0


class _StopUnless(tenacity.stop.stop_base):
    """Ends the attempts once the result is not wanted any more."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted

    def __call__(self, unused_state: tenacity.RetryCallState) -> bool:
        return not self._is_wanted()


def default_actor_id() -> str:
    """Returns a unique name for an actor: host, process and a random part."""
    host = "".join(
        c if c.isascii() and (c.isalnum() or c in "-.") else "-" for c in socket.gethostname()
    )
    return f"{host[:32].strip('-.') or 'actor'}-{os.getpid()}-{secrets.token_hex(3)}"
