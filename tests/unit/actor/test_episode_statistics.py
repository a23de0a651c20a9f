"""Returns and lengths are those of the real game, whatever rows lie in between.

Seen to fail with: padding rows counted as steps, and every slot's episode taken for finished
in a pause row.
"""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from impala_actor.environments.adapter import StepResult
from impala_actor.environments.episode_statistics import EpisodeRecord, EpisodeTracker
from impala_actor.environments.slots import adapt
from impala_common.testing.environments import CountingEnv


def make_step(
    rewards: list[float], is_padding: list[bool], is_first: list[bool] | None = None
) -> StepResult:
    ended = np.zeros(len(rewards), np.bool_)
    return StepResult(
        {},
        np.array(rewards, np.float32),
        ended,
        ended,
        np.array(is_padding),
        np.array(is_padding if is_first is None else is_first),
    )


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_update_in_any_autoreset_mode_reports_each_episode_once(mode: AutoresetMode) -> None:
    lengths = (2, 5)
    makers = [lambda length=length: CountingEnv(length) for length in lengths]
    environment = adapt(SyncVectorEnv(makers, autoreset_mode=mode))
    tracker = EpisodeTracker(2)
    environment.reset(0)

    records = []
    for _ in range(60):
        records += tracker.update(environment.step(np.zeros(2, np.int64)))

    for slot, length in enumerate(lengths):
        expected = EpisodeRecord(10.0 * length * (length + 1) / 2, length, slot)
        own = [record for record in records if record.environment_slot == slot]
        assert own == [expected] * len(own)
        assert len(own) >= 60 // (2 * length + 2)


def test_update_with_reset_row_reports_what_came_before_it() -> None:
    tracker = EpisodeTracker(2)

    assert tracker.update(make_step([1.0, 5.0], [False, False])) == []
    assert tracker.update(make_step([2.0, 5.0], [False, False])) == []
    records = tracker.update(make_step([0.0, 5.0], [True, False]))

    assert records == [EpisodeRecord(3.0, 2, 0)]
    assert tracker.unfinished() == [EpisodeRecord(0.0, 0, 0), EpisodeRecord(15.0, 3, 1)]


def test_update_with_reset_in_the_step_that_ends_counts_the_other_slot_on() -> None:
    tracker = EpisodeTracker(2)
    ended = np.array([True, False])
    step = make_step([1.0, 5.0], [False, False], [True, False])

    records = tracker.update(step._replace(truncated=ended, final_observations={}))

    assert records == [EpisodeRecord(1.0, 1, 0)]
    assert tracker.num_steps.tolist() == [0, 1]


def test_update_with_lost_life_goes_on_with_the_game() -> None:
    tracker = EpisodeTracker(1)
    tracker.update(make_step([1.0], [False], [True]))
    tracker.update(make_step([2.0], [False]))

    assert tracker.update(make_step([0.0], [True])) == [EpisodeRecord(3.0, 2, 0)]
