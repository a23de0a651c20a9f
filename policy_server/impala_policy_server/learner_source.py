"""LearnerSource: the policy of a learner in training, whose actor this server is.

Runs on the event loop; LearnerSession's thread calls it through `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from impala_actor.acting.learner_client import LearnerClient
from impala_actor.acting.session_model import make_session_model
from impala_common.errors import ImpalaError, LearnerUnavailableError, SpecMismatchError
from impala_common.policy.inference.backend import InferenceBackend
from impala_common.policy.inference.selection import make_inference
from impala_common.rpc.security import ClientSecurity
from impala_common.spec.specs import EnvironmentSpec, validate_same_environment
from impala_policy_server.engine_settings import EngineSettings
from impala_policy_server.learner_session import LearnerSession, OpenSession
from impala_policy_server.outbox import Outbox
from impala_policy_server.policy_engine import PolicyEngine
from impala_policy_server.policy_source import OnEnd, OnRoom, PolicySource

_LOG = logging.getLogger(__name__)
_OPEN_S = 15.0
_REOPEN_S = 30.0
_CLOSE_S = 5.0


class LearnerSource(PolicySource):
    """Registers with the learner when the first client says what it plays."""

    def __init__(
        self,
        address: str,
        actor_id: str,
        settings: EngineSettings,
        *,
        connect_timeout_s: float = 0.0,
        security: ClientSecurity | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Connects when first used; arguments as LearnerClient's."""
        self._settings = settings
        self._stop = stop or threading.Event()
        self.client = LearnerClient(address, actor_id, connect_timeout_s, self._stop, security)
        self._opening = asyncio.Lock()
        self._wanted: EnvironmentSpec | None = None
        self._session: LearnerSession | None = None
        self._engine: PolicyEngine | None = None
        self._outbox: Outbox | None = None
        self._on_room: OnRoom = lambda: None
        self._on_end: OnEnd = lambda error: None

    def attach(self, on_room: OnRoom, on_end: OnEnd) -> None:
        """See PolicySource."""
        self._on_room, self._on_end = on_room, on_end

    @property
    def session(self) -> LearnerSession | None:
        """The side towards the learner, once there is one."""
        return self._session

    @property
    def num_waiting(self) -> int:
        """Complete unrolls that are not sent yet."""
        return 0 if self._outbox is None else self._outbox.num_unrolls

    async def open(self, environment: EnvironmentSpec, num_slots: int) -> PolicyEngine:
        """See PolicySource."""
        async with self._opening:
            if self._engine is None:
                self._engine = await self._make_engine(environment, num_slots)
        validate_same_environment(self._engine.environment, environment)
        return self._engine

    async def close(self) -> None:
        """See PolicySource."""
        self._stop.set()
        if self._session is not None:
            await asyncio.to_thread(self._session.join, _CLOSE_S)
        self.client.close()
        if self._session is not None:
            await asyncio.to_thread(self._session.join, _CLOSE_S)

    async def _make_engine(self, environment: EnvironmentSpec, num_slots: int) -> PolicyEngine:
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._outbox = Outbox(lambda: _call(loop, self._on_room))
            self._wanted = environment
            self._session = LearnerSession(
                self.client,
                environment,
                num_slots,
                self._settings.model,
                self._outbox,
                lambda opened: self._reopen(loop, opened),
                lambda error: _call(loop, lambda: self._on_end(error)),
            )
        self._require_wanted(environment)
        try:
            waiting = asyncio.wrap_future(self._session.opened)
            waiting.add_done_callback(_retrieve)  # its error may come after the wait
            opened = await asyncio.wait_for(asyncio.shield(waiting), _OPEN_S)
        except TimeoutError:
            raise LearnerUnavailableError(
                f"no answer from the learner at {self.client.address} yet"
            ) from None
        except ImpalaError as error:
            self._session = None
            _LOG.warning("no session with the learner: %s", error)
            raise
        engine = await asyncio.to_thread(self._build, opened)
        _LOG.info("session with the learner at %s is open", self.client.address)
        return engine

    def _require_wanted(self, environment: EnvironmentSpec) -> None:
        """Raises LearnerUnavailableError if the learner has been asked about another environment.

        Whether it trains that one is open: the client that plays it may be the one that is wrong.
        """
        assert self._wanted is not None
        try:
            validate_same_environment(self._wanted, environment)
        except SpecMismatchError as error:
            raise LearnerUnavailableError(
                f"no answer from the learner at {self.client.address} yet, which an earlier client "
                f"asks for with another environment: {error}"
            ) from None

    def _build(self, opened: OpenSession) -> PolicyEngine:
        session = opened.session
        assert self._session is not None
        return PolicyEngine(
            session.unroll.environment,
            self._make_inference(opened),
            session.unroll.agent_state,
            seed=session.seed,
            max_slots=self._settings.max_slots,
            max_batch_size=self._settings.max_batch_size,
            unroll=session.unroll,
            max_unrolls=session.max_unrolls,
            outbox=self._outbox,
            take_weights=self._session.take_weights,
            version=opened.policy_version,
        )

    def _make_inference(self, opened: OpenSession) -> InferenceBackend:
        session, settings = opened.session, self._settings
        inference = make_inference(
            settings.inference_backend,
            make_session_model(session),
            session.unroll.environment,
            settings.max_batch_size,
            session.unroll.unroll_length,
            settings.device,
        )
        inference.load(opened.weights)
        return inference

    def _reopen(self, loop: asyncio.AbstractEventLoop, opened: OpenSession) -> None:
        """Takes over a further session; called from the session's thread, which waits.

        The network is made anew, as an ordinary actor does: the learner may be one with others.
        """
        session, inference = opened.session, self._make_inference(opened)
        done = threading.Event()

        def begin() -> None:
            assert self._outbox is not None
            if self._engine is not None:
                self._engine.begin_session(
                    inference, opened.policy_version, session.unroll, session.max_unrolls
                )
            self._outbox.clear()
            done.set()

        _call(loop, begin)
        done.wait(_REOPEN_S)


def _retrieve(done: asyncio.Future[OpenSession]) -> None:
    """Marks an error as known, for asyncio warns of others."""
    if not done.cancelled():
        done.exception()


def _call(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Calls `work` on the event loop, unless that has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(work)
