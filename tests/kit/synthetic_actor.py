"""SyntheticActor: an actor's transport on a thread, without environment or network."""

from __future__ import annotations

import threading
import time

from raw_peer import ENVIRONMENT

from impala_actor.acting.learner_client import LearnerClient, Session
from impala_actor.acting.unroll_sender import UnrollSender
from impala_common.errors import ImpalaError, LearnerUnavailableError, StaleSessionError
from impala_common.testing.unrolls import make_unrolls, pack_stacked
from impala_rl.v1 import learner_pb2


class SyntheticActor(threading.Thread):
    """An actor's transport without environment or network: sends random unrolls for ever.

    Attributes:
      has_accepted: set when unrolls were accepted; the test clears it.
      accepted_s: when that was.
      registered_s: when it registered, each time.
    """

    def __init__(self, index: int, address: str) -> None:
        super().__init__(name=f"test-synthetic-{index}")
        self.stop = threading.Event()
        self.client = LearnerClient(address, f"synthetic-{index}", stop=self.stop)
        self.registered_s: list[float] = []
        self.has_accepted = threading.Event()
        self.accepted_s = 0.0

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                session = self.client.register(ENVIRONMENT, 4)
                self.registered_s.append(time.monotonic())
                self._push(session)
            except (StaleSessionError, LearnerUnavailableError):
                continue
            except ImpalaError:
                return  # asked to stop
        self.client.close()

    def _push(self, session: Session) -> None:
        sender = UnrollSender(self.client, session, lambda _version: None)
        unrolls = make_unrolls(session.unroll, 8, seed=1)
        try:
            while not self.stop.is_set():
                sender.wait_for_room()
                if sender.outcomes.get("ACCEPTED") and not self.has_accepted.is_set():
                    self.accepted_s = time.monotonic()
                    self.has_accepted.set()
                message = pack_stacked(unrolls, session.unroll, compress=False)
                sender.send(learner_pb2.PushUnrollsRequest(unrolls=message))
        finally:
            sender.close()
