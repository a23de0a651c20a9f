"""Settings of the canaries, and what their tests read off a trained network."""

from __future__ import annotations

from typing import Any

import torch
from running_server import TINY, make_config

from impala_common.config import TrainConfig
from impala_common.models.contract import AgentModel, ModelInputs

SEED = 1


def make_canary_config(total_steps: int, **sections: dict[str, Any]) -> TrainConfig:
    settings: dict[str, dict[str, Any]] = {
        "job": {"total_steps": total_steps, "seed": SEED},
        "environment": {"envs_per_actor": 16},
        "rollout": {"unroll_length": 16, "batch_size": 16, "num_storages": 32},
    }
    return make_config(**(settings | sections))


def compute_values(model: AgentModel, observations: list[list[float]]) -> list[float]:
    """Returns V of each observation, for a network without memory."""
    rows = torch.tensor([observations])
    shape = rows.shape[:2]
    inputs = ModelInputs(
        {"observation": rows},
        torch.zeros(shape, dtype=torch.bool),
        torch.zeros(shape, dtype=torch.int64),
        torch.zeros(shape),
    )
    with torch.no_grad():
        values: list[float] = model(inputs, ()).values[0].tolist()
    return values


MEMORY_ENV = TINY + "RepeatCue-v0"
MEMORY_BEST_RETURN = 10.0
MEMORY_CHANCE_RETURN = 5.0


def make_memory_config(recurrence: str) -> TrainConfig:
    """A cue and, 4 steps later, its question; unrolls of 6 steps, episodes of some 60.

    Two in three questions come in another unroll than their cue. Gradients reach back to
    the cue in the others only (k < T), and what they teach must be carried across.
    """
    return make_canary_config(
        80_000,
        environment={"envs_per_actor": 32},
        model={"recurrence": recurrence, "hidden_sizes": (16,), "hidden_dim": 32},
        rollout={"unroll_length": 6, "batch_size": 32, "num_storages": 64},
        loss={"discount": 0.9, "vtrace_lambda": 0.95, "entropy_cost": 0.01},
        optimizer={"learning_rate": 4e-3},
    )
