"""From storage to model inputs: frames are stacked again, previous actions and rewards aligned."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest
import torch

from impala_common.codec.unrolls import UnrollDecoder
from impala_common.spec.specs import ModelSpec, UnrollSpec
from impala_common.testing.unrolls import (
    make_frames_spec,
    make_unrolls,
    make_vector_spec,
    pack_stacked,
)
from impala_server.learner.batch_loader import Batch, BatchLoader
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.layout import StorageLayout, UnrollOrigin

BATCH_SIZE = 3
CPU = torch.device("cpu")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_CUDA])]


def make_model_spec(has_feedback: bool) -> ModelSpec:
    return ModelSpec("mlp", (8,), 8, 8, False, "orthogonal", "tanh", has_feedback, 1.0)


def load(
    spec: UnrollSpec, unrolls: dict[str, Any], has_feedback: bool = False, device: str = "cpu"
) -> Batch:
    """Returns the batch that a learner would see of `unrolls`, sent one by one."""
    layout = StorageLayout(spec, BATCH_SIZE, num_batch_slots=2)
    buffer = memoryview(mmap.mmap(-1, layout.num_bytes))
    slots, decoder = BatchSlots(layout, buffer), UnrollDecoder(spec, BATCH_SIZE)
    loader = BatchLoader(layout, buffer, make_model_spec(has_feedback), torch.device(device))
    full = None
    for n in range(BATCH_SIZE):
        one = {
            leaf.tensor.name: unrolls[leaf.tensor.name][n : n + 1]
            if leaf.rows == "none"
            else unrolls[leaf.tensor.name][:, n : n + 1]
            for leaf in spec.leaves
        }
        message = decoder.decode(pack_stacked(one, spec, compress=False))
        _, full = slots.write(message, 0, 40 + n, UnrollOrigin(n, 1, 1))
    assert full is not None
    return loader.load(full)


@pytest.mark.parametrize("device", DEVICES)
def test_load_of_frames_gives_the_stacked_observations(device: str) -> None:
    """Seen to fail with frame_starts of T+1 frames per column in place of max_frames."""
    spec = make_frames_spec(unroll_length=7, stack=4, side=6)
    unrolls = make_unrolls(spec, BATCH_SIZE, seed=11)

    batch = load(spec, unrolls, device=device)

    assert batch.inputs.observations["observation"].dtype == torch.uint8
    np.testing.assert_array_equal(
        batch.inputs.observations["observation"].cpu().numpy(), unrolls["observation"]
    )


@pytest.mark.parametrize("device", DEVICES)
def test_load_of_vectors_gives_every_leaf(device: str) -> None:
    spec = make_vector_spec()
    unrolls = make_unrolls(spec, BATCH_SIZE, seed=12)

    batch = load(spec, unrolls, device=device)

    loaded = {
        "observation": batch.inputs.observations["observation"],
        "is_first": batch.inputs.is_first,
        "initial_agent_state/0": batch.initial_agent_state[0].swapaxes(0, 1),  # [L, B, H]
    } | {name: getattr(batch, name) for name in ("actions", "rewards", "terminated", "is_padding")}
    for name, tensor in loaded.items():
        np.testing.assert_array_equal(tensor.cpu().numpy(), unrolls[name], err_msg=name)
    np.testing.assert_array_equal(batch.policy_versions, [40, 41, 42])
    assert batch.num_steps == unrolls["is_padding"].size - unrolls["is_padding"].sum()


@pytest.mark.parametrize("device", DEVICES)
def test_load_with_feedback_puts_the_last_decision_at_each_observation(device: str) -> None:
    """Seen to fail with actions and rewards that are not moved by one row."""
    spec = make_vector_spec(unroll_length=3)
    unrolls = make_unrolls(spec, BATCH_SIZE, seed=13)
    unrolls["actions"][:] = [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    unrolls["rewards"][:] = [[10, 10, 10], [20, 20, 20], [30, 30, 30]]
    unrolls["previous_action"][:] = 4
    unrolls["previous_reward"][:] = 40
    unrolls["is_first"][:] = False
    unrolls["is_first"][2, 1] = True
    unrolls["is_first"][0, 2] = True

    inputs = load(spec, unrolls, has_feedback=True, device=device).inputs

    np.testing.assert_array_equal(
        inputs.previous_actions.cpu().numpy(), [[4, 4, 0], [1, 1, 1], [2, 0, 2], [3, 3, 3]]
    )
    np.testing.assert_array_equal(
        inputs.previous_rewards.cpu().numpy(),
        [[40, 40, 0], [10, 10, 10], [20, 0, 20], [30, 30, 30]],
    )


def test_load_without_feedback_gives_zeros_in_the_right_shape() -> None:
    spec = make_vector_spec()

    inputs = load(spec, make_unrolls(spec, BATCH_SIZE, seed=14)).inputs

    for tensor in (inputs.previous_actions, inputs.previous_rewards):
        assert tensor.shape == (spec.unroll_length + 1, BATCH_SIZE)
        assert not tensor.any()
