"""Samples of random spaces reach the learner's batch unchanged, and actions the environment.

The way of a sample is the real one: vector environment, adapter, unroll builder, message, decoder,
storage slot, batch loader, network. Gymnasium's own flatten and unflatten are the oracle for what
becomes one-hot. Seen to fail with leaves in the order of the space, with `start` not subtracted and
with slashes of keys left as they are.
"""

from __future__ import annotations

import math
import mmap
from typing import Any
from urllib.parse import unquote

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impala_actor.acting.unroll_builder import UnrollBuilder
from impala_actor.environments.slots import make_slots
from impala_common.codec.specs import pack_environment_spec, unpack_environment_spec
from impala_common.codec.unrolls import UnrollDecoder, pack_unrolls
from impala_common.config.sections import ModelConfig
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.policy import PolicyStep
from impala_common.spec.specs import DTYPES, UnrollSpec
from impala_server.learner.batch_loader import Batch, BatchLoader
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.layout import StorageLayout, UnrollOrigin

NUM_SLOTS, UNROLL_LENGTH, EPISODE_LENGTH = 2, 5, 3
SMALL = ModelConfig(hidden_sizes=(8,), feature_dim=8, init_method="identity")
CPU = torch.device("cpu")


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Space[Any]:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    max_side = draw(st.sampled_from([2, 5]))
    shape = tuple(draw(st.lists(st.integers(1, max_side), max_size=6)))
    if math.prod(shape) > 400:
        shape = shape[:3]
    if dtype.kind == "f" and draw(st.booleans()):
        return spaces.Box(-np.inf, np.inf, shape, dtype.type)
    low = -100 if dtype.kind in "if" else 0
    return spaces.Box(low, 1 if dtype.kind == "b" else 120, shape, dtype.type)


def parts() -> st.SearchStrategy[spaces.Space[Any]]:
    sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
    return st.one_of(
        boxes(),
        st.builds(spaces.Discrete, st.integers(1, 9), start=st.integers(-5, 5)),
        st.builds(spaces.MultiDiscrete, sizes),
        st.builds(lambda rows: spaces.MultiDiscrete([rows, rows]), sizes),
        st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 5), st.just([2, 3]))),
    )


def trees() -> st.SearchStrategy[spaces.Space[Any]]:
    keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4) | st.sampled_from(
        ["a/b", "a", "a%2Fb", "0", "10", "2"]
    )
    return st.recursive(
        parts(),
        lambda inner: st.one_of(
            st.builds(spaces.Dict, st.dictionaries(keys, inner, min_size=1, max_size=3)),
            st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3)),
        ),
        max_leaves=8,
    )


class SamplingEnv(gymnasium.Env[Any, np.int64]):
    """Shows samples of its space, and keeps them."""

    def __init__(self, space: spaces.Space[Any], seed: int, samples: list[Any]) -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(3)
        space.seed(seed)
        self._samples = samples
        self._t = 0

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self._t = 0
        return self._sample(), {}

    def step(self, _: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        return self._sample(), 0.0, False, self._t == EPISODE_LENGTH, {}

    def _sample(self) -> Any:
        self._samples.append(self.observation_space.sample())
        return self._samples[-1]


def learn_from(space: spaces.Space[Any], seed: int) -> tuple[Batch, list[list[Any]]]:
    """Returns the batch of one unroll per slot, and what each slot sampled."""
    samples: list[list[Any]] = [[] for _ in range(NUM_SLOTS)]
    remaining = [*samples]
    environment = make_slots(
        "samples", lambda: SamplingEnv(space, seed, remaining.pop(0)), NUM_SLOTS, "sync"
    )
    for slot_samples in samples:
        slot_samples.clear()  # of the look for action masks
    observations = environment.reset(seed)
    assert unpack_environment_spec(pack_environment_spec(environment.spec)) == environment.spec
    spec = UnrollSpec(UNROLL_LENGTH, environment.spec)
    builder = UnrollBuilder(spec, NUM_SLOTS)
    actions, zeros = np.zeros(NUM_SLOTS, np.int64), np.zeros(NUM_SLOTS, np.float32)
    builder.begin(observations, np.ones(NUM_SLOTS, np.bool_), (), actions, zeros)
    while not builder.is_complete:
        decision = PolicyStep(actions, np.zeros((NUM_SLOTS, 3), np.float32))
        builder.add(decision, environment.step(actions))
    environment.close()

    message = pack_unrolls(builder.unrolls, spec, compress=True)
    layout = StorageLayout(spec, NUM_SLOTS, num_batch_slots=1)
    buffer = memoryview(mmap.mmap(-1, layout.num_bytes))
    decoded = UnrollDecoder(spec, NUM_SLOTS).decode(message)
    _, full = BatchSlots(layout, buffer).write(decoded, 0, 0, UnrollOrigin(0, 1, 1))
    assert full is not None
    model_spec = resolve_model_spec(SMALL, environment.spec)
    batch = BatchLoader(layout, buffer, model_spec, CPU).load(full)
    model = make_model(model_spec, environment.spec, seed)
    with torch.no_grad():
        outputs = model(batch.inputs, ())
    assert outputs.policy_logits.shape == (UNROLL_LENGTH + 1, NUM_SLOTS, 3)
    assert outputs.values.isfinite().all()
    return batch, samples


def find_part(space: spaces.Space[Any], sample: Any, leaf_name: str) -> tuple[Any, Any]:
    """Returns the part of a space, and of a sample of it, that a leaf's name leads to."""
    for key in map(unquote, leaf_name.split("/")[1:]):
        if isinstance(space, spaces.Dict):
            space, sample = space[key], sample[key]
        else:
            assert isinstance(space, spaces.Tuple)
            space, sample = space[int(key)], sample[int(key)]
    return space, sample


def count_parts(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Dict):
        return sum(map(count_parts, space.spaces.values()))
    return sum(map(count_parts, space)) if isinstance(space, spaces.Tuple) else 1


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(space=trees(), seed=st.integers(0, 1000))
def test_samples_of_any_space_come_out_of_the_batch_and_back(
    space: spaces.Space[Any], seed: int
) -> None:
    batch, samples = learn_from(space, seed)

    observations = batch.inputs.observations
    assert len(observations) == count_parts(space)
    for name, leaf in observations.items():
        for slot in range(NUM_SLOTS):
            assert len(samples[slot]) == UNROLL_LENGTH + 1
            for t, sample in enumerate(samples[slot]):
                part, value = find_part(space, sample, name)
                found = leaf[t, slot].numpy()
                if isinstance(part, spaces.Discrete | spaces.MultiDiscrete):
                    assert found.dtype == np.float32
                    np.testing.assert_array_equal(found, spaces.flatten(part, value))
                    found = spaces.unflatten(part, found.astype(np.int64))
                else:
                    assert found.dtype == part.dtype
                np.testing.assert_array_equal(found, value)
