"""TrainingState: applied batches, copies of it, and ways back, without storage or processes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from running_server import make_config
from update_batches import VECTOR, make_batches

from impala_common.config import TrainConfig
from impala_common.errors import CheckpointError
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.run.checkpoints import Checkpoint
from impala_common.spec.specs import EnvironmentSpec, TensorSpec
from impala_server.learner.training_state import StateSnapshot, TrainingState

NORMALISED = {"normalise_observations": True, "hidden_sizes": (8,)}


def make_state(
    checkpoint: Checkpoint | None = None, config: TrainConfig | None = None
) -> TrainingState:
    config = config or make_config(
        model=NORMALISED, loss={"reward_normalisation": "return_std"}, job={"total_steps": 10_000}
    )
    return TrainingState(config, VECTOR, checkpoint)


def as_checkpoint(snapshot: StateSnapshot) -> Checkpoint:
    steps = snapshot.state["counters"]["trained_steps"]
    return Checkpoint("a-checkpoint", steps, snapshot.tensors, snapshot.state)


def assert_same(
    one: StateSnapshot, other: StateSnapshot, groups: tuple[str, ...] = ("weights",)
) -> None:
    for group in groups:
        assert one.tensors[group].keys() == other.tensors[group].keys()
        for name, array in one.tensors[group].items():
            np.testing.assert_array_equal(array, other.tensors[group][name], err_msg=name)


def test_apply_counts_what_was_trained_on() -> None:
    state = make_state()
    batches = make_batches(2)

    for batch in batches:
        assert state.apply(batch).is_applied

    counters = state.counters
    assert counters.policy_version == 2
    assert counters.trained_steps == sum(batch.num_steps for batch in batches)
    assert counters.trained_unrolls == sum(batch.num_unrolls for batch in batches)
    assert state.learning_rate < state.config.optimizer.learning_rate


def test_state_from_a_copy_goes_on_as_the_state_itself() -> None:
    """Seen to fail with optimizer state left out of the copy."""
    state = make_state()
    first, second, third = make_batches(3)
    state.apply(first)
    state.apply(second)

    other = make_state(as_checkpoint(state.export()))
    state.apply(third)
    other.apply(third)

    assert_same(state.export(), other.export(), ("weights", "optimizer"))
    assert state.counters == other.counters


def test_run_of_an_earlier_version_resumes_with_its_integers_as_they_are() -> None:
    """Planted: the network resolved as for a new run."""
    grid = EnvironmentSpec((TensorSpec("observation", (7, 7, 3), "uint8"),), VECTOR.action)
    config = make_config(model=NORMALISED, job={"total_steps": 10_000})
    snapshot = TrainingState(config, grid, None).export()
    old_spec = resolve_model_spec(config.model, grid, normalise_integers=False)
    old_model = make_model(old_spec, grid, seed=3)
    snapshot.state["model"] = dataclasses.asdict(old_spec)
    del snapshot.state["model"]["normalise_integers"]
    snapshot.tensors["weights"] = {
        name: value.numpy() for name, value in old_model.state_dict().items()
    }
    snapshot.tensors["optimizer"] = {}

    state = TrainingState(config, grid, as_checkpoint(snapshot))

    assert state.model_spec == old_spec
    assert state.model_spec.observation_scale == 1 / 255
    for name, value in old_model.state_dict().items():
        assert torch.equal(state.model.state_dict()[name], value)


def test_roll_back_restores_all_but_what_only_grows() -> None:
    state = make_state()
    batches = make_batches(3)
    state.apply(batches[0])
    saved = state.export()
    state.counters.dropped_unrolls = 3
    state.apply(batches[1])

    steps_before = state.roll_back(as_checkpoint(saved))

    assert steps_before == batches[0].num_steps + batches[1].num_steps
    assert_same(state.export(), saved, ("weights", "optimizer"))
    assert state.counters.trained_steps == batches[0].num_steps
    assert state.counters.policy_version == 3
    assert state.counters.dropped_unrolls == 3


def test_roll_back_to_another_network_changes_nothing() -> None:
    state = make_state()
    state.apply(make_batches(1)[0])
    before = state.export()
    other = make_state(config=make_config(model={"hidden_sizes": (4,)}))

    with pytest.raises(CheckpointError, match="network"):
        state.roll_back(as_checkpoint(other.export()))

    assert_same(state.export(), before, ("weights", "optimizer"))


def test_update_that_is_not_finite_is_counted_and_nothing_else_changes() -> None:
    """Seen to fail without statistics put back."""
    state = make_state()
    good, bad = make_batches(2)
    state.apply(good)
    before = state.export()

    result = state.apply(bad._replace(rewards=torch.full_like(bad.rewards, torch.nan)))

    assert not result.is_applied
    assert not result.damage
    assert_same(state.export(), before, ("weights", "optimizer"))
    assert state.counters.skipped_updates == 1
    assert state.counters.policy_version == 1
