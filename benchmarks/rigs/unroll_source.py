"""Unrolls for synthetic actors to send: recorded in a real game, or random numbers.

Made by a benchmark, kept in a temporary folder, read by the processes of
`synthetic_actors`. One entry is what one message carries: N unrolls of T steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from impala_actor.acting.unroll_builder import UnrollBuilder
from impala_actor.environments.adapter import StepResult
from impala_actor.environments.factory import make_environment
from impala_common.codec.frames import UniqueFrames
from impala_common.codec.unrolls import Unrolls, pack_unrolls
from impala_common.policy.policy import PolicyStep
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec
from impala_common.testing.unrolls import make_unrolls, split_unrolls

Array = np.ndarray[Any, Any]
_WARM_UP_STEPS = 100
"""Steps before the first recorded one: the games are under way then."""


@dataclasses.dataclass(frozen=True)
class UnrollSource:
    """Messages to send, again and again.

    Attributes:
      spec: of each unroll.
      num_slots: N, unrolls of one message.
      messages: what each of them carries, as an actor's UnrollBuilder hands it over.
    """

    spec: UnrollSpec
    num_slots: int
    messages: tuple[Unrolls, ...]

    def save(self, path: Path) -> None:
        """Writes it into the folder `path`."""
        arrays: dict[str, Array] = {}
        for number, message in enumerate(self.messages):
            arrays |= {f"{number}/leaf/{name}": array for name, array in message.leaves.items()}
            if message.frames is not None:
                frames = message.frames._asdict().items()
                arrays |= {f"{number}/unique/{name}": array for name, array in frames}
        np.savez(path / "unrolls.npz", **arrays)  # type: ignore[arg-type]
        described = {
            "environment": self.spec.environment.to_json(),
            "unroll_length": self.spec.unroll_length,
            "num_slots": self.num_slots,
        }
        (path / "unrolls.json").write_text(json.dumps(described))

    @classmethod
    def load(cls, path: Path) -> UnrollSource:
        """Returns what `save` wrote."""
        described = json.loads((path / "unrolls.json").read_text())
        environment = EnvironmentSpec.from_json(described["environment"])
        spec = UnrollSpec(described["unroll_length"], environment)
        leaves: dict[int, dict[str, Array]] = {}
        unique: dict[int, dict[str, Array]] = {}
        with np.load(path / "unrolls.npz", allow_pickle=False) as arrays:
            for key in arrays.files:
                number, kind, name = key.split("/", 2)
                part = leaves if kind == "leaf" else unique
                part.setdefault(int(number), {})[name] = arrays[key]
        num_slots = described["num_slots"]
        messages = tuple(
            Unrolls(
                num_slots,
                leaves[number],
                UniqueFrames(**unique[number]) if number in unique else None,
            )
            for number in sorted(leaves)
        )
        return cls(spec, num_slots, messages)

    def message_bytes(self, compress: bool) -> float:
        """Returns the mean size of a packed message."""
        sizes = [pack_unrolls(m, self.spec, compress).ByteSize() for m in self.messages]
        return float(np.mean(sizes))


def record_atari(
    env_id: str, unroll_length: int, num_slots: int, num_messages: int
) -> UnrollSource:
    """Plays `env_id` at random through the actor's own environment and unroll builder."""
    environment = make_environment(env_id, num_slots * num_messages)
    spec = UnrollSpec(unroll_length, environment.spec)
    try:
        messages = _play(environment, spec, num_slots)
    finally:
        environment.close()
    return UnrollSource(spec, num_slots, messages)


def _play(environment: Any, spec: UnrollSpec, num_slots: int) -> tuple[Unrolls, ...]:
    """Returns the unrolls of all slots of an EnvironmentAdapter, `num_slots` to a message."""
    random = np.random.default_rng(1)
    num_all = environment.num_slots
    num_actions = spec.environment.action.num_logits
    observations = environment.reset(seed=1)
    is_first = np.ones(num_all, np.bool_)
    parts = [slice(first, first + num_slots) for first in range(0, num_all, num_slots)]
    builders = [UnrollBuilder(spec, num_slots) for _ in parts]
    for step in range(_WARM_UP_STEPS + spec.unroll_length):
        if step == _WARM_UP_STEPS:
            nothing = np.zeros(num_slots, np.int64), np.zeros(num_slots, np.float32)
            for part, builder in zip(parts, builders, strict=True):
                builder.begin(_cut(observations, part), is_first[part], (), *nothing)
        logits = random.standard_normal((num_all, num_actions)).astype(np.float32)
        decision = PolicyStep(random.integers(0, num_actions, num_all), logits)
        result = environment.step(decision.actions)
        observations, is_first = result.observations, result.is_first
        if step < _WARM_UP_STEPS:
            continue
        for part, builder in zip(parts, builders, strict=True):
            decided = PolicyStep(*(array[part] for array in decision))
            arrays = (array[part] for array in result[1:6])  # ale-py resets in the next step
            builder.add(decided, StepResult(_cut(observations, part), *arrays))
    return tuple(builder.unrolls for builder in builders)


def _cut(observations: Mapping[str, Array], part: slice) -> dict[str, Array]:
    return {name: array[part] for name, array in observations.items()}


def make_pixels(unroll_length: int, num_slots: int, num_messages: int) -> UnrollSource:
    """Returns unrolls of random 84x84x4 pixels, which nothing makes smaller."""
    leaf = TensorSpec("observation", (4, 84, 84), "uint8")
    return _make_random((leaf,), unroll_length, num_slots, num_messages)


def make_vectors(
    unroll_length: int, num_slots: int, num_messages: int, width: int = 4
) -> UnrollSource:
    """Returns unrolls of random vectors, as of a small control task."""
    leaf = TensorSpec("observation", (width,), "float32")
    return _make_random((leaf,), unroll_length, num_slots, num_messages)


def _make_random(
    leaves: tuple[TensorSpec, ...], unroll_length: int, num_slots: int, num_messages: int
) -> UnrollSource:
    spec = UnrollSpec(unroll_length, EnvironmentSpec(leaves, ActionSpec.discrete(6)))
    messages = tuple(
        split_unrolls(make_unrolls(spec, num_slots, seed), spec) for seed in range(num_messages)
    )
    return UnrollSource(spec, num_slots, messages)
