"""Our loop over MinAtar's games plays exactly what MinAtar's own Environment plays.

Seen to fail with: the sticky action drawn after the game's own draws, the last action forgotten
at a reset, and an unseeded game.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from impala_actor.environments.adapter import derive_slot_seeds
from impala_actor.environments.factory import make_environment

minatar = pytest.importorskip("minatar")

GAMES = {
    "Asterix": (4, 5),
    "Breakout": (4, 3),
    "Freeway": (7, 3),
    "Seaquest": (10, 6),
    "SpaceInvaders": (6, 4),
}
"""Game -> channels, minimal number of actions."""


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_make_environment_for_minatar_has_its_shapes(game: str, version: str) -> None:
    environment = make_environment(f"MinAtar/{game}-{version}", 2)
    channels, num_minimal = GAMES[game]

    observation = environment.reset(0)["observation"]

    assert observation.shape == (2, 10, 10, channels)
    assert observation.dtype == np.bool_
    assert environment.spec.action.num_logits == (6 if version == "v0" else num_minimal)


@pytest.mark.parametrize("game", GAMES)
def test_step_plays_what_minatar_plays(game: str) -> None:
    snake = {"SpaceInvaders": "space_invaders"}.get(game, game.lower())
    environment = make_environment(f"MinAtar/{game}-v1", 2)
    oracles = [minatar.Environment(snake) for _ in range(2)]
    observation = environment.reset(11)["observation"]
    for oracle, seed in zip(oracles, derive_slot_seeds(11, 2), strict=True):
        oracle.seed(seed)
        oracle.reset()
    random = np.random.default_rng(0)
    is_over = [False, False]
    num_ends = 0

    for _ in range(400):
        for slot, oracle in enumerate(oracles):
            np.testing.assert_array_equal(observation[slot], oracle.state())
        actions = random.integers(environment.spec.action.num_logits, size=2)
        step = environment.step(actions)
        observation = step.observations["observation"]
        assert step.is_padding.tolist() == is_over
        for slot, oracle in enumerate(oracles):
            if is_over[slot]:
                oracle.reset()
                expected = (0, False)
            else:
                expected = oracle.act(oracle.minimal_action_set()[actions[slot]])
            assert (step.rewards[slot], step.terminated[slot]) == expected
            is_over[slot] = bool(expected[1])
            num_ends += is_over[slot]
        assert not step.truncated.any()

    assert num_ends or game in ("Freeway", "SpaceInvaders")


def test_reset_seeds_differ_among_slots_and_can_be_repeated() -> None:
    environment = make_environment("MinAtar/Seaquest-v1", 3)

    def frames(seed: int) -> np.ndarray:
        environment.reset(seed)
        actions = np.zeros(3, np.int64)
        return np.stack([environment.step(actions).observations["observation"] for _ in range(100)])

    first, again, other = frames(3), frames(3), frames(4)

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[:, 0] != first[:, 1]).any()


def test_make_environment_for_minatar_does_not_import_its_plotting() -> None:
    code = (
        "import sys\n"
        "from impala_actor.environments.factory import make_environment\n"
        "make_environment('MinAtar/Breakout-v1', 1).reset(0)\n"
        "print(*{'seaborn', 'pandas', 'matplotlib', 'torch'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
