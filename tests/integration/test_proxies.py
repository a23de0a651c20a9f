"""What a proxy between client and learner says itself: clients reconnect, and none of them ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_relay import FAULTS, FaultyRelay
from raw_peer import ENVIRONMENT
from running_server import RunningServer
from synthetic_actor import SyntheticActor

from impala_actor.acting.learner_client import LearnerClient
from impala_actor.evaluation.candidate_subscriber import CandidateSubscriber
from impala_actor.evaluation.evaluation_client import EvaluationClient

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyRelay]:
    path: Path = tmp_path_factory.mktemp("proxies")
    with RunningServer(path / "run") as server:
        relay = FaultyRelay(server.address)
        try:
            yield relay
        finally:
            relay.close()


@pytest.mark.parametrize("name", FAULTS)
def test_call_that_a_proxy_answers_is_made_again(relay: FaultyRelay, name: str) -> None:
    """Seen to fail for all codes but UNAVAILABLE, CANCELLED and DEADLINE_EXCEEDED."""
    client = LearnerClient(relay.address, "asker", connect_timeout_s=60.0)
    try:
        relay.arm(FAULTS[name], 2)
        assert client.get_defaults().num_slots > 0
        assert relay.was_used.is_set()
    finally:
        client.close()


def test_stream_of_unrolls_that_a_proxy_breaks_is_opened_again(relay: FaultyRelay) -> None:
    """Seen to end the actor at the first fault whose status has no reason of ours."""
    actor = SyntheticActor(0, relay.address)
    actor.start()
    try:
        for name, fault in FAULTS.items():
            assert actor.has_accepted.wait(30.0), name
            relay.arm(fault)
            assert relay.was_used.wait(30.0), name
            actor.has_accepted.clear()
        assert actor.has_accepted.wait(30.0)
    finally:
        actor.stop.set()
        actor.join(10.0)


@pytest.mark.parametrize("name", ["RST_STREAM 2", "GOAWAY ENHANCE_YOUR_CALM", "HTTP status 403"])
def test_evaluator_whose_stream_a_proxy_breaks_watches_again(relay: FaultyRelay, name: str) -> None:
    """Seen to fail: the subscriber kept the failure and raised it from `take`."""
    stop = threading.Event()
    client = EvaluationClient(relay.address, "watcher", 60.0, stop)
    relay.arm(FAULTS[name], 2)
    subscriber = CandidateSubscriber(client, ENVIRONMENT)
    try:
        assert relay.was_used.wait(30.0)
        stop.wait(1.5)  # long enough for a failure to have been kept; none is no matter of time
        stop.set()
        assert subscriber.take() is None
    finally:
        subscriber.close()
        client.close()
