"""Environments of other packages train for a minute at most, through impala-train as a user has it.

Each test is skipped by name where its package is missing: `make test-environments` installs them
all first. CartPole of EnvPool is held to a return; the others to a whole run: every step trained,
no update skipped, an evaluation of finite returns.
"""

from __future__ import annotations

import ctypes.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.environments,
    pytest.mark.timeout(600),
]

OLD_GYM = '''
import gym, gymnasium, numpy, shimmy


class Corridor(gym.Env):
    """An environment of the old package: five fields, the goal at the right end."""

    observation_space = gym.spaces.Box(0.0, 1.0, (5,), numpy.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.field = 0
        return self.look(), {}

    def step(self, action):
        self.field = max(0, self.field + (1 if action else -1))
        has_won = self.field == 4
        return self.look(), 1.0 if has_won else -0.1, has_won, False, {}

    def look(self):
        return numpy.eye(5, dtype=numpy.float32)[self.field]


gymnasium.register(
    "Corridor-v0",
    entry_point=lambda: shimmy.GymV26CompatibilityV0(env=Corridor()),
    max_episode_steps=50,
)
'''


def train(folder: Path, *options: object) -> dict[str, Any]:
    """Returns the evaluation of a run of impala-train; the run must have trained every step."""
    run = folder / "run"
    command = [Path(sys.executable).parent / "impala-train", *options, "--run-dir", run]
    command += ["--quiet", "--seed", "100", "--eval-episodes", "10"]
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["steps"] >= int(options[options.index("--total-steps") + 1])
    assert last["learner/skipped_updates"] == 0
    assert last["unrolls/invalid"] == 0
    evaluation: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    assert evaluation["num_episodes"] == 10
    assert all(map(math.isfinite, evaluation["returns"]))
    return evaluation


def test_envpool_cartpole_is_learned(tmp_path: Path) -> None:
    pytest.importorskip("envpool")

    evaluation = train(tmp_path, "CartPole-v1", "--env-backend", "envpool", "--total-steps", 60_000)

    assert evaluation["return_mean"] >= 300.0


def test_envpool_procgen(tmp_path: Path) -> None:
    pytest.importorskip("envpool")
    if ctypes.util.find_library("Qt5Gui") is None:
        pytest.skip("EnvPool's Procgen needs Qt 5: apt install libqt5gui5")

    train(tmp_path, "CoinrunEasy-v0", "--env-backend", "envpool", "--total-steps", 6_000)


def test_envpool_atari(tmp_path: Path) -> None:
    pytest.importorskip("envpool")

    train(tmp_path, "Breakout-v5", "--env-backend", "envpool", "--total-steps", 6_000)


@pytest.mark.parametrize("env", ["Hopper-v5", "Reacher-v5", "InvertedPendulum-v5"])
def test_mujoco(tmp_path: Path, env: str) -> None:
    pytest.importorskip("mujoco")

    train(tmp_path, env, "--total-steps", 30_000)


@pytest.mark.parametrize("env", ["LunarLander-v3", "BipedalWalker-v3"])
def test_box2d(tmp_path: Path, env: str) -> None:
    pytest.importorskip("Box2D")

    train(tmp_path, env, "--total-steps", 30_000)


def test_box2d_pixels(tmp_path: Path) -> None:
    pytest.importorskip("Box2D")

    train(tmp_path, "CarRacing-v3", "--total-steps", 5_000)


@pytest.mark.parametrize("env", ["MiniGrid-Empty-8x8-v0", "BabyAI-GoToRedBallGrey-v0"])
def test_minigrid(tmp_path: Path, env: str) -> None:
    pytest.importorskip("minigrid")

    train(tmp_path, env, "--total-steps", 30_000)


def test_old_gym_through_shimmy(tmp_path: Path) -> None:
    pytest.importorskip("gym")
    pytest.importorskip("shimmy")
    (tmp_path / "my_old_envs.py").write_text(OLD_GYM)

    evaluation = train(tmp_path, "my_old_envs:Corridor-v0", "--total-steps", 40_000)

    assert evaluation["return_mean"] >= 0.6  # of .7; without learning below 0
