"""The rungs of the ladder: what is trained, with which options, and what is to be reached.

Read by `benchmarks.studies.ladder`, which runs one, and by `benchmarks.suite.ladder_page`.
Settings were tuned on seeds 0 to 9; rungs are judged on seeds from 100 on.
"""

from __future__ import annotations

import dataclasses

FIRST_SEED = 100
"""Seeds below were used to tune."""
_ATARI_BOUND = (
    "on two cores of an AMD EPYC without bfloat16 (family 25). The network's forward pass is 18.7 "
    "MFLOP a row; four passes, each with V-trace anew, are 300 MFLOP an agent step, or 60 GFLOP/s"
)
_MEMORY_ENV = "impala_common.testing.environments:PositionCartPole-v1"
_TRIED_MINATAR_15 = (
    "460,000 to 600,000 steps were needed, at 7,400 to 8,000 steps/s on an Intel Xeon (avx512f), "
    "and 4 s to start. On an AMD EPYC (family 25; avx2) the bar took 220 s at 2,500 steps/s: an "
    "update of 1,024 steps, four passes with V-trace anew in each, takes 225 to 278 ms of a core "
    "there (the benchmark `update`), and took 317 to 351 ms before the convolution had its "
    "channels last"
)
_TRIED_MINATAR = {
    "Seaquest": "seed 0, returns in training: 8.4 at 906k steps with the preset; 6.0 at 770k with "
    "one actor of 16 slots, T 20, B 16, rate 1e-3, 4 passes in 2 parts of whole unrolls, "
    "advantages as they are"
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """One rung.

    Attributes:
      env: environment id.
      bar: mean return of frozen weights, at least.
      num_seeds: from FIRST_SEED on.
      aim: the bar in words: by which step, of how many seeds.
      within_s: seconds from the command to the bar, median, at most; 0: any.
      total_steps: agent steps of a run; 0: the preset's. No more than the aim allows.
      train_args: further options of impala-train.
      eval_episodes: episodes that a seed is judged by.
      greedy: whether the most probable actions are judged, as the published figures are.
      tried: what was tried; shown where the bar is missed.
    """

    env: str
    bar: float
    num_seeds: int
    aim: str
    within_s: float = 0.0
    total_steps: int = 0
    train_args: str = ""
    eval_episodes: int = 100
    greedy: bool = False
    tried: str = ""


RUNGS: dict[str, Rung] = {
    "cartpole": Rung(
        env="CartPole-v1",
        bar=475.0,
        num_seeds=20,
        aim="475 by 100k steps, within 8 s of the command",
        within_s=8.0,
        total_steps=100_000,
        tried="on an AMD EPYC (family 25; avx2) it takes 15 s: 7.5 s to start, in which learner "
        "and actor import torch, 3.5 s each, and 8 s of training",
    ),
    "cartpole_held": Rung(
        env="CartPole-v1",
        bar=400.0,
        num_seeds=20,
        aim="400 still by 5M",
        total_steps=5_000_000,
    ),
    "acrobot": Rung(
        env="Acrobot-v1", bar=-90.0, num_seeds=5, aim="-90 by 500k", total_steps=400_000
    ),
    "pendulum": Rung(
        env="Pendulum-v1", bar=-170.0, num_seeds=5, aim="-170 by 300k", total_steps=300_000
    ),
    "lunarlander": Rung(
        env="LunarLander-v3", bar=200.0, num_seeds=5, aim="200 by 1M", total_steps=300_000
    ),
    "lunarlander_held": Rung(
        env="LunarLander-v3",
        bar=200.0,
        num_seeds=5,
        aim="200 still by 3M",
        total_steps=3_000_000,
    ),
    "mountaincar_continuous": Rung(
        env="MountainCarContinuous-v0",
        bar=90.0,
        num_seeds=3,
        aim="90 by 1M, generic preset",
        total_steps=200_000,
    ),
    "cliffwalking": Rung(
        env="CliffWalking-v1",
        bar=-15.0,
        num_seeds=3,
        aim="-15 by 1M, generic preset",
        total_steps=400_000,
    ),
    "blackjack": Rung(
        env="Blackjack-v1",
        bar=-0.06,
        num_seeds=3,
        aim="-.06 by 1M, generic preset",
        total_steps=500_000,
        eval_episodes=10_000,
    ),
    "doorkey": Rung(
        env="MiniGrid-DoorKey-5x5-v0",
        bar=0.9,
        num_seeds=5,
        aim=".9 by 200k, generic preset",
        total_steps=200_000,
    ),
    "doorkey_held": Rung(
        env="MiniGrid-DoorKey-5x5-v0",
        bar=0.9,
        num_seeds=5,
        aim=".9 still by 1M, generic preset",
        total_steps=1_000_000,
    ),
    "minatar_breakout_15": Rung(
        env="MinAtar/Breakout-v0",
        bar=15.0,
        num_seeds=3,
        aim="15 by 1M, within 60 s of the command",
        within_s=60.0,
        tried=_TRIED_MINATAR_15,
        total_steps=1_000_000,
    ),
    **{
        f"minatar_{name.lower()}": Rung(
            env=f"MinAtar/{name}-v0",
            bar=bar,
            num_seeds=3,
            aim=f"{bar:g} by 5M",
            tried=_TRIED_MINATAR.get(name, ""),
        )
        for name, bar in (
            ("Breakout", 40.0),
            ("Asterix", 20.0),
            ("Freeway", 55.0),
            ("Seaquest", 40.0),
            ("SpaceInvaders", 150.0),
        )
    },
    **{
        name.lower(): Rung(
            env=f"{name}-v5", bar=bar, num_seeds=5, aim=f"{bar:,g} by 1M", greedy=True
        )
        for name, bar in (("HalfCheetah", 3041.0), ("Hopper", 733.0), ("Walker2d", 1200.0))
    },
    "position_cartpole": Rung(
        env=_MEMORY_ENV,
        bar=475.0,
        num_seeds=5,
        aim="475 by 1M, with memory",
        tried="500,000 steps: 3 of 5 seeds (497, 487, 449, 489, 471). Two passes with the "
        "surrogate in two parts, decaying rate of 2e-3, seeds 0 to 3: 500, 455, 500 and 494 at "
        "500,000, 466 and 477 (seeds 1 and 2) at a million, where the preset has 500, 496 and 482 "
        "(seeds 0 to 2)",
    ),
    "minigrid_memory": Rung(
        env="MiniGrid-MemoryS7-v0",
        bar=0.92,
        num_seeds=1,
        aim=".92 by 2.5M, with memory",
        tried="seed 0, 400k steps: .50 with the preset, .49 with four passes and the surrogate, "
        "which is chance. What is to be remembered stands behind the agent when an episode begins",
    ),
    "pong": Rung(
        env="ALE/Pong-v5",
        bar=18.0,
        num_seeds=2,
        aim="18 by 3M",
        total_steps=3_000_000,
        tried=f"not run to its end: 200 steps/s {_ATARI_BOUND}, so that 3M steps take four hours. "
        "Neither one learner thread (126 steps/s) nor threads that spin (197) is faster",
    ),
    "breakout": Rung(
        env="ALE/Breakout-v5",
        bar=100.0,
        num_seeds=1,
        aim="100 by 4M",
        total_steps=4_000_000,
        tried=f"not run: 4M steps would take five hours and a half {_ATARI_BOUND}",
    ),
}
"""Rungs by name."""
