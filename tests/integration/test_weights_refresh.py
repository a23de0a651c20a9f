"""Weights that an actor takes over within an unroll, through real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running_server import RunningServer, make_config

from impala_actor.acting import actor_loop
from impala_common.run import metrics

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("refresh", ["unroll", "step"])
def test_version_of_an_unroll_is_the_oldest_of_its_weights(
    refresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the newest version told, so that its lag would look smaller than it is."""
    told: list[int] = []  # versions in messages
    held: list[list[int]] = [[]]  # versions held while the steps of a message were taken
    loop: Any = actor_loop._SessionLoop
    play, swap = loop._play_unrolls, loop._swap_weights

    def note_swap(self: Any, version: int, weights: Any) -> None:
        held[-1].append(version)
        swap(self, version, weights)

    def note_play(self: Any) -> None:
        held.append([self._version])
        play(self)
        held.append([])

    class Sender(actor_loop.UnrollSender):
        def send(self, request: Any, marks: Any) -> None:
            told.append(request.unrolls.policy_version)
            super().send(request, marks)

    monkeypatch.setattr(loop, "_swap_weights", note_swap)
    monkeypatch.setattr(loop, "_play_unrolls", note_play)
    monkeypatch.setattr(actor_loop, "UnrollSender", Sender)
    config = make_config(
        environment={"envs_per_actor": 2},
        rollout={"batch_size": 2, "unroll_length": 200},
        transport={"weights_refresh": refresh},
    )
    with RunningServer(tmp_path / "run", config) as server:
        server.run_actor("CartPole-v1")

        def is_over(status: dict[str, float]) -> bool:
            newer = [versions for versions in held[1::2] if len(versions) > 1]
            return status.get(metrics.UPDATES, 0) > 50 and (refresh == "unroll" or len(newer) > 5)

        server.wait_until(is_over)
        server.stop()

    played = held[1::2]
    assert told == [versions[0] for versions in played[: len(told)]]
    assert any(len(versions) > 1 for versions in played) is (refresh == "step")
