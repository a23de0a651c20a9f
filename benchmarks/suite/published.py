"""What others publish for the environments measured here, each figure with its source.

Read by `benchmarks.suite.report` and `benchmarks.suite.ladder_page`, which put them beside our
own. Other versions of an environment (Hopper-v3 for Hopper-v5) are close, not equal.
"""

from __future__ import annotations

from typing import NamedTuple

_ZOO = "https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md"
_HUB = "https://huggingface.co/sb3/a2c-Hopper-v3"
_DOORKEY = "https://huggingface.co/sb3/ppo-MiniGrid-DoorKey-5x5-v0"


class Published(NamedTuple):
    """A figure of somebody else.

    Attributes:
      what: algorithm, library and environment.
      steps: agent steps of training.
      return_mean: mean return of evaluation episodes.
      terms: how many runs, and how they were judged.
      source: URL.
    """

    what: str
    steps: int
    return_mean: float
    terms: str
    source: str


_ONE_RUN = "one run, most probable actions"
_ONE_RUN_DRAWN = "one run, drawn actions, no sticky actions"

_MINATAR = "https://arxiv.org/abs/1903.03176"

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "CartPole-v1": (
        Published("PPO, RL Zoo, CartPole-v1", 100_000, 500.0, _ONE_RUN, _ZOO),
        Published("A2C, RL Zoo, CartPole-v1", 500_000, 500.0, _ONE_RUN, _ZOO),
    ),
    "Acrobot-v1": (
        Published("PPO, RL Zoo, Acrobot-v1", 1_000_000, -73.51, _ONE_RUN, _ZOO),
        Published("A2C, RL Zoo, Acrobot-v1", 500_000, -83.35, _ONE_RUN, _ZOO),
    ),
    "LunarLander-v3": (
        Published("PPO, RL Zoo, LunarLander-v2", 1_000_000, 242.12, _ONE_RUN, _ZOO),
        Published("A2C, RL Zoo, LunarLander-v2", 200_000, 155.75, _ONE_RUN, _ZOO),
    ),
    "MountainCarContinuous-v0": (
        Published("PPO, RL Zoo, MountainCarContinuous-v0", 20_000, 88.34, _ONE_RUN, _ZOO),
        Published("A2C, RL Zoo, MountainCarContinuous-v0", 100_000, 91.17, _ONE_RUN, _ZOO),
    ),
    **{
        f"MinAtar/{game}-v0": (
            Published(
                f"actor-critic, Young and Tian, {game}",
                5_000_000,
                value,
                "30 runs",
                _MINATAR,
            ),
        )
        for game, value in (
            ("Breakout", 17.5),
            ("Asterix", 19.0),
            ("Freeway", 47.0),
            ("Seaquest", 15.0),
            ("SpaceInvaders", 185.0),
        )
    },
    "Pendulum-v1": (
        Published("A2C, RL Zoo, Pendulum-v1", 1_000_000, -162.97, _ONE_RUN, _ZOO),
        Published("PPO, RL Zoo, Pendulum-v1", 100_000, -172.23, _ONE_RUN, _ZOO),
    ),
    "HalfCheetah-v5": (
        Published("A2C, RL Zoo, HalfCheetah-v3", 1_000_000, 3041.17, _ONE_RUN, _ZOO),
        Published("PPO, RL Zoo, HalfCheetah-v3", 1_000_000, 5819.10, _ONE_RUN, _ZOO),
    ),
    "Walker2d-v5": (Published("PPO, RL Zoo, Walker2d-v3", 1_000_000, 3478.80, _ONE_RUN, _ZOO),),
    "ALE/Pong-v5": (
        Published("A2C, RL Zoo, PongNoFrameskip-v4", 10_000_000, 17.29, _ONE_RUN_DRAWN, _ZOO),
        Published("PPO, RL Zoo, PongNoFrameskip-v4", 10_000_000, 20.99, _ONE_RUN_DRAWN, _ZOO),
    ),
    "ALE/Breakout-v5": (
        Published("A2C, RL Zoo, BreakoutNoFrameskip-v4", 10_000_000, 279.79, _ONE_RUN_DRAWN, _ZOO),
        Published("PPO, RL Zoo, BreakoutNoFrameskip-v4", 10_000_000, 398.03, _ONE_RUN_DRAWN, _ZOO),
    ),
    "MiniGrid-DoorKey-5x5-v0": (
        Published("PPO, model on the SB3 hub, DoorKey-5x5", 100_000, 0.97, "one run", _DOORKEY),
    ),
    "Hopper-v5": (
        Published("A2C, RL Zoo, Hopper-v3", 1_000_000, 733.45, _ONE_RUN, _ZOO),
        Published("A2C, model on the SB3 hub, Hopper-v3", 1_000_000, 679.01, _ONE_RUN, _HUB),
    ),
}
"""Figures by our environment's id."""
