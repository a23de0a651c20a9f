"""What others publish for the environments measured here, each figure with its source.

Only read by `benchmarks.suite.report`, which puts these rows under our own. Other
versions of an environment (Hopper-v3 for Hopper-v5) are close, not equal.
"""

from __future__ import annotations

from typing import NamedTuple

_ZOO = "https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md"
_HUB = "https://huggingface.co/sb3/a2c-Hopper-v3"


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

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "Pendulum-v1": (
        Published("A2C, RL Zoo, Pendulum-v1", 1_000_000, -162.97, _ONE_RUN, _ZOO),
        Published("PPO, RL Zoo, Pendulum-v1", 100_000, -172.23, _ONE_RUN, _ZOO),
    ),
    "HalfCheetah-v5": (
        Published("A2C, RL Zoo, HalfCheetah-v3", 1_000_000, 3041.17, _ONE_RUN, _ZOO),
        Published("PPO, RL Zoo, HalfCheetah-v3", 1_000_000, 5819.10, _ONE_RUN, _ZOO),
    ),
    "Hopper-v5": (
        Published("A2C, RL Zoo, Hopper-v3", 1_000_000, 733.45, _ONE_RUN, _ZOO),
        Published("A2C, model on the SB3 hub, Hopper-v3", 1_000_000, 679.01, _ONE_RUN, _HUB),
    ),
}
"""Figures by our environment's id."""
