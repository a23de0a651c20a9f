"""One actor that sends absurd numbers is quarantined, and the run goes on without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from admin_peer import admin_of
from raw_peer import ACCEPTED, Peer, peer_of, refused
from running_server import RunningServer, make_config

from impala_common.errors import NotFoundError
from impala_common.run import metrics
from impala_rl.v1 import learner_pb2, unroll_pb2

pytestmark = pytest.mark.timeout(60)
INVALID = learner_pb2.VERDICT_OUTCOME_INVALID


def _with_return(peer: Peer) -> unroll_pb2.UnrollBatch:
    message = peer.message()
    message.episodes.add(episode_return=3e38, step_count=5)
    return message


ABSURD: dict[str, Callable[[Peer], unroll_pb2.UnrollBatch]] = {
    "rewards": lambda peer: peer.message(rewards=np.float32(3e38)),
    "previous_reward": lambda peer: peer.message(previous_reward=np.float32(-3e38)),
    "observation": lambda peer: peer.message(observation=np.float32(1e20)),
    "behaviour_policy_logits": lambda peer: peer.message(behaviour_policy_logits=np.float32(-2e9)),
    "episodes.episode_return": _with_return,
}


@pytest.mark.parametrize("what", ABSURD)
def test_actor_of_absurd_numbers_is_quarantined_and_the_run_goes_on(
    tmp_path: Path, what: str
) -> None:
    """Before: rewards of 3e38 paused the run after five updates that were not finite."""
    config = make_config(optimizer={"when_diverged": "pause"})
    with (
        RunningServer(tmp_path, config) as server,
        peer_of(server, "honest") as honest,
        peer_of(server, "odd", run_id=12) as odd,
        admin_of(server) as admin,
    ):
        honest.register()
        odd.register()
        good, bad = honest.push().hello(), odd.push().hello()
        for number in range(3):
            verdict = bad.offer(ABSURD[what](odd))
            assert (verdict.outcome, verdict.text.partition(":")[0]) == (INVALID, what)
            assert good.offer(honest.message()).outcome == ACCEPTED, number

        assert "quarantined" in (bad.end().details() or "")
        with refused(grpc.StatusCode.PERMISSION_DENIED, "BANNED", "impala-admin unban odd"):
            odd.register()
        (finding,) = admin.status()["findings"]
        assert finding.startswith(f"actor odd is quarantined: {what}: expected")
        for _ in range(3):
            assert good.offer(honest.message()).outcome == ACCEPTED
        status = server.wait_until(lambda now: now.get(metrics.UPDATES, 0) >= 6)
        assert (status["state"], status[metrics.SKIPPED_UPDATES]) == ("RUNNING", 0)

        admin.call("UnbanActor", actor_id="odd")
        assert "findings" not in admin.status() or not admin.status()["findings"]
        odd.register()


def test_rare_absurd_numbers_are_refused_without_a_quarantine(tmp_path: Path) -> None:
    """A simulation that blows up once in a while costs its unrolls, not its actor."""
    with (
        RunningServer(tmp_path) as server,
        peer_of(server) as peer,
        admin_of(server) as admin,
    ):
        peer.register()
        stream = peer.push().hello()
        for _ in range(4):
            assert stream.offer(peer.message(rewards=np.float32(3e38))).outcome == INVALID
            for _ in range(16):
                assert stream.offer(peer.message(num_unrolls=1)).outcome == ACCEPTED

        assert not _findings_of(admin)
        with pytest.raises(NotFoundError):
            admin.call("UnbanActor", actor_id="peer")


def _findings_of(admin: Any) -> list[str]:
    return [text for text in admin.status().get("findings") or () if "quarantine" in text]
