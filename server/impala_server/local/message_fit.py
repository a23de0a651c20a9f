"""fit_to_messages: slots and unroll length with which the unrolls of an actor fit a message.

An actor sends the unrolls of all its slots in one message. With large observations the slots that
were chosen for small ones are too many: more actors of fewer slots play them, and unrolls become
shorter where even a few do not fit. Slots and rows in an update stay as many. Pure.
"""

from __future__ import annotations

import dataclasses

from impala_common.config import TrainConfig
from impala_common.rpc.limits import MAX_UNROLL_BYTES
from impala_common.spec.specs import EnvironmentSpec, UnrollSpec

_FEW_SLOTS = 8
_SHORTEST = 16


def fit_to_messages(
    config: TrainConfig, named: frozenset[str], environment: EnvironmentSpec | None
) -> TrainConfig:
    """Returns `config`, with actors whose unrolls fit a message where that can be chosen.

    Args:
      config: the settings, with actors and slots.
      named: settings that a file or an option names, by field; they stay.
      environment: its specification; None: not known, nothing is chosen.
    """
    num_slots = config.environment.envs_per_actor
    if environment is None or "envs_per_actor" in named or config.job.lockstep:
        return config
    if num_slots <= _count_fitting(config, environment):
        return config
    total = num_slots * config.job.num_actors
    if named.isdisjoint(("unroll_length", "batch_size", "num_storages")):
        config = _shorten(config, environment, min(num_slots, _FEW_SLOTS))
    # At least 1: the learner says what to do where not even one fits.
    limit = min(num_slots, max(1, _count_fitting(config, environment)))
    num_actors = config.job.num_actors
    if "num_actors" not in named and num_actors:
        num_actors = -(-total // limit)
        limit = -(-total // num_actors)  # alike for all actors
    return dataclasses.replace(
        config,
        job=dataclasses.replace(config.job, num_actors=num_actors),
        environment=dataclasses.replace(config.environment, envs_per_actor=limit),
    )


def _count_fitting(config: TrainConfig, environment: EnvironmentSpec) -> int:
    """Returns how many unrolls a message holds; what a network remembers takes 2 % at most."""
    num_bytes = UnrollSpec(config.rollout.unroll_length, environment).num_bytes
    return int(0.98 * MAX_UNROLL_BYTES) // num_bytes


def _shorten(config: TrainConfig, environment: EnvironmentSpec, num_slots: int) -> TrainConfig:
    """Returns settings with shorter unrolls, and as many more of them, until so many slots fit."""
    while _count_fitting(config, environment) < num_slots:
        rollout = config.rollout
        if rollout.unroll_length < 2 * _SHORTEST:
            break
        rollout = dataclasses.replace(
            rollout,
            unroll_length=rollout.unroll_length // 2,
            batch_size=rollout.batch_size * 2,
            num_storages=rollout.num_storages * 2,
        )
        config = dataclasses.replace(config, rollout=rollout)
    return config
