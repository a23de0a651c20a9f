"""The wait of a batch follows the duration of decisions, below its limit."""

from __future__ import annotations

import pytest

from impala_policy_server.batch_wait import BatchWait


def test_wait_is_the_longest_until_a_decision_was_made() -> None:
    assert BatchWait(0.002).seconds == 0.002


def test_wait_follows_the_mean_duration_of_decisions() -> None:
    wait = BatchWait(0.01)
    wait.note_decision(0.004)
    assert wait.seconds == 0.004

    for _ in range(100):
        wait.note_decision(0.001)
    assert wait.seconds == pytest.approx(0.001, rel=0.01)


def test_wait_is_never_longer_than_its_limit() -> None:
    wait = BatchWait(0.002)
    wait.note_decision(5.0)
    assert wait.seconds == 0.002
