"""Slots and unrolls of environments with large observations: what is chosen fits a message."""

from __future__ import annotations

import dataclasses

import pytest

from impala_common.config.presets import make_preset
from impala_common.rpc.limits import MAX_UNROLL_BYTES
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec
from impala_server.local.message_fit import fit_to_messages
from impala_server.local.tuning import MachineFacts, choose_local_run

NOTHING: frozenset[str] = frozenset()


def make_spec(shape: tuple[int, ...], dtype: str = "uint8") -> EnvironmentSpec:
    return EnvironmentSpec((TensorSpec("observation", shape, dtype),), ActionSpec.discrete(3))


@pytest.mark.parametrize("num_cores", [1, 2, 8, 64])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((128, 128, 3), "uint8"),
        ((100, 100, 3), "uint8"),
        ((84, 84, 4), "float32"),
        ((210, 160, 3), "uint8"),
        ((480, 640, 3), "uint8"),
    ],
)
def test_defaults_fit_a_message_whatever_the_observation(
    shape: tuple[int, ...], dtype: str, num_cores: int
) -> None:
    """Seen to fail: the learner refused every actor, with no setting named."""
    spec, preset = make_spec(shape, dtype), make_preset("generic")
    facts = MachineFacts(num_cores=num_cores)
    plain = choose_local_run(preset, NOTHING, facts).config

    config = choose_local_run(preset, NOTHING, facts, spec).config

    num_slots, rollout = config.environment.envs_per_actor, config.rollout
    unroll = UnrollSpec(rollout.unroll_length, spec)
    assert num_slots * unroll.num_bytes <= MAX_UNROLL_BYTES
    wanted = plain.environment.envs_per_actor * plain.job.num_actors
    assert wanted <= num_slots * config.job.num_actors < wanted + config.job.num_actors
    rows = rollout.unroll_length * rollout.batch_size
    assert rows == preset.rollout.unroll_length * preset.rollout.batch_size
    assert rollout.num_storage_slots == preset.rollout.num_storage_slots


def test_small_observations_change_nothing() -> None:
    preset = make_preset("generic")

    assert fit_to_messages(preset, NOTHING, make_spec((84, 84, 1))) is preset
    assert fit_to_messages(preset, NOTHING, None) is preset


def test_settings_that_are_named_stay() -> None:
    preset, spec = make_preset("generic"), make_spec((210, 160, 3))

    assert fit_to_messages(preset, frozenset({"envs_per_actor"}), spec) is preset
    fitted = fit_to_messages(preset, frozenset({"unroll_length", "num_actors"}), spec)

    assert fitted.rollout == preset.rollout
    assert fitted.job == preset.job
    assert fitted.environment == dataclasses.replace(preset.environment, envs_per_actor=4)
