"""ale-py's vector environment behaves as the adapter assumes.

Seen to fail with: ale-py's episodic_life in place of life_loss_info (only first lives are then
played), reward clipping left on, padding rows expected after every lost life.
"""

from __future__ import annotations

import numpy as np
import pytest

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.ale import (
    LifeLossAdapter,
    make_ale_environment,
    parse_game_id,
)
from impala_actor.environments.episode_statistics import EpisodeRecord, EpisodeTracker
from impala_actor.environments.factory import make_environment
from impala_common.config.sections import EnvironmentConfig

pytest.importorskip("ale_py")

BREAKOUT = "ALE/Breakout-v5"


def play(environment: EnvironmentAdapter, num_rows: int, seed: int = 1) -> list[EpisodeRecord]:
    """Returns the episodes finished in so many rows of random actions."""
    random = np.random.default_rng(0)
    tracker = EpisodeTracker(environment.num_slots)
    environment.reset(seed)
    records = []
    for _ in range(num_rows):
        actions = random.integers(environment.spec.action.num_logits, size=environment.num_slots)
        records += tracker.update(environment.step(actions))
    environment.close()
    return records


@pytest.mark.parametrize(
    ("env_id", "rom", "sticky"),
    [
        ("ALE/Pong-v5", "pong", 0.25),
        ("PongNoFrameskip-v4", "pong", 0.0),
        ("Pong-v4", "pong", 0.0),
        ("ALE/MsPacman-v5", "ms_pacman", 0.25),
    ],
)
def test_parse_game_id_knows_game_and_stickiness(env_id: str, rom: str, sticky: float) -> None:
    game = parse_game_id(env_id)

    assert game is not None
    assert (game.rom, game.sticky_action_probability) == (rom, sticky)
    assert game.max_episode_frames == 108_000


@pytest.mark.parametrize("env_id", ["CartPole-v0", "Ant-v4", "my_module:Env-v4", "Acrobot-v1"])
def test_parse_game_id_with_other_environment_returns_none(env_id: str) -> None:
    assert parse_game_id(env_id) is None


def test_make_environment_for_atari_stacks_frames() -> None:
    environment = make_environment(BREAKOUT, 2)
    single = make_environment(BREAKOUT, 2, EnvironmentConfig(atari_frame_stack=1))

    leaf = environment.spec.observation_leaves[0]
    assert (leaf.shape, leaf.dtype) == ((4, 84, 84), "uint8")
    assert (environment.spec.frame_stack, environment.spec.action.num_logits) == (4, 4)
    assert single.spec.frame_stack == 0
    assert single.reset(0)["observation"].shape == (2, 1, 84, 84)


def test_frames_move_up_the_stack_within_an_episode_and_start_from_zeros() -> None:
    environment = make_environment(BREAKOUT, 2, EnvironmentConfig(atari_episodic_life=True))
    before = environment.reset(1)["observation"]
    assert not before[:, :3].any()
    assert before[:, 3].any()
    random = np.random.default_rng(0)
    num_resets = num_lives_lost = 0

    for _ in range(250):
        step = environment.step(random.integers(4, size=2))
        after = step.observations["observation"]
        for slot in range(2):
            if step.is_padding[slot]:
                assert not after[slot, :3].any()
                num_resets += 1
            else:
                np.testing.assert_array_equal(after[slot, :3], before[slot, 1:])
                num_lives_lost += step.is_first[slot]
        before = after

    assert num_resets >= 2
    assert num_lives_lost >= 4 * num_resets


def test_results_keep_their_values_after_the_next_step() -> None:
    environment = make_environment(BREAKOUT, 2)
    first = environment.reset(1)["observation"]
    copy = first.copy()

    for _ in range(3):
        environment.step(np.ones(2, np.int64))

    np.testing.assert_array_equal(first, copy)


def test_reset_seeds_differ_among_slots_and_can_be_repeated() -> None:
    def frames(seed: int) -> np.ndarray:
        environment = make_environment("ALE/SpaceInvaders-v5", 3)
        environment.reset(seed)
        rows = [environment.step(np.full(3, 3)).observations["observation"] for _ in range(30)]
        environment.close()
        return np.stack(rows)

    first, again, other = frames(0), frames(0), frames(7)

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[:, 0] != first[:, 1]).any()
    assert (first[:, 1] != first[:, 2]).any()


def test_rewards_are_raw() -> None:
    environment = make_environment("ALE/SpaceInvaders-v5", 4)
    environment.reset(0)
    random = np.random.default_rng(0)

    rewards = [environment.step(random.integers(6, size=4)).rewards for _ in range(150)]
    environment.close()

    assert np.max(rewards) >= 5


def test_time_limit_in_frames_truncates_and_is_no_termination() -> None:
    game = parse_game_id("ALE/Pong-v5")
    assert game is not None
    environment = make_ale_environment(
        game._replace(max_episode_frames=200), 2, EnvironmentConfig()
    )
    environment.reset(0)

    steps = [environment.step(np.zeros(2, np.int64)) for _ in range(52)]
    environment.close()

    assert [step.truncated.tolist() for step in steps].index([True, True]) == 49
    assert not any(step.terminated.any() for step in steps)
    assert [step.is_padding.all() for step in steps] == [False] * 50 + [True, False]


def test_episodic_life_reports_the_same_games_as_without() -> None:
    """The emulation is untouched, so games, returns and lengths must be the very same ones."""
    config = EnvironmentConfig(atari_episodic_life=True)
    whole, lives = make_environment(BREAKOUT, 4), make_environment(BREAKOUT, 4, config)
    assert isinstance(lives, LifeLossAdapter)

    expected, actual = play(whole, 600), play(lives, 600)

    assert len(expected) >= 6
    assert sum(record.episode_return for record in expected) > 0
    assert actual == expected


def test_episodic_life_ends_episodes_at_lost_lives_without_padding() -> None:
    environment = make_environment(BREAKOUT, 2, EnvironmentConfig(atari_episodic_life=True))
    environment.reset(1)
    random = np.random.default_rng(0)
    steps = [environment.step(random.integers(4, size=2)) for _ in range(700)]
    environment.close()

    for slot in range(2):
        ends = [bool(step.terminated[slot]) for step in steps]
        firsts = [bool(step.is_first[slot]) for step in steps]
        padding = [bool(step.is_padding[slot]) for step in steps]
        num_games = sum(padding)
        assert num_games >= 2
        # Five lives: four end in the midst of the game, at once a first row, and one in a reset.
        games = [row for row, is_padding in enumerate(padding) if is_padding]
        for start, stop in zip([0, *games], games, strict=False):
            rows = range(start, stop)
            assert sum(ends[row] for row in rows) == 5
            assert [row for row in rows if firsts[row] and not padding[row]] == [
                row for row in rows if ends[row] and not padding[row + 1]
            ]
            assert ends[stop - 1]
            assert not firsts[stop - 1]
            assert firsts[stop]
