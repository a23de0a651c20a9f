"""Unrolls for synthetic actors to send: recorded in a real game, or random numbers.

Made by a benchmark, kept in a temporary folder, read by the processes of
`synthetic_actors`. One entry is what one message carries: N unrolls of T steps.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from impala_actor.environments.factory import make_environment
from impala_actor.policy import PolicyStep
from impala_actor.unroll_builder import UnrollBuilder
from impala_common.codec.unrolls import pack_unrolls
from impala_common.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec
from impala_common.testing.unrolls import make_unrolls

Array = np.ndarray[Any, Any]
_WARM_UP_STEPS = 100
"""Steps before the first recorded one: the games are under way then."""


@dataclasses.dataclass(frozen=True)
class UnrollSource:
    """Messages to send, again and again.

    Attributes:
      spec: of each unroll.
      num_slots: N, unrolls of one message.
      messages: leaf name -> array, as `pack_unrolls` takes them, for each message.
    """

    spec: UnrollSpec
    num_slots: int
    messages: tuple[dict[str, Array], ...]

    def save(self, path: Path) -> None:
        """Writes it into the folder `path`."""
        arrays = {
            f"{number}/{name}": array
            for number, message in enumerate(self.messages)
            for name, array in message.items()
        }
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
        messages: dict[int, dict[str, Array]] = {}
        with np.load(path / "unrolls.npz", allow_pickle=False) as arrays:
            for key in arrays.files:
                number, name = key.split("/", 1)
                messages.setdefault(int(number), {})[name] = arrays[key]
        in_order = tuple(messages[number] for number in sorted(messages))
        return cls(spec, described["num_slots"], in_order)

    def message_bytes(self, compress: bool) -> float:
        """Returns the mean size of a packed message."""
        sizes = [pack_unrolls(m, self.spec, compress).ByteSize() for m in self.messages]
        return float(np.mean(sizes))


def record_atari(
    env_id: str, unroll_length: int, num_slots: int, num_messages: int
) -> UnrollSource:
    """Plays `env_id` at random through the actor's own environment and unroll builder."""
    environment = make_environment(env_id, num_slots * num_messages)
    try:
        columns = _play(environment, UnrollSpec(unroll_length, environment.spec))
    finally:
        environment.close()
    spec = UnrollSpec(unroll_length, environment.spec)
    rows = {leaf.tensor.name: leaf.rows for leaf in spec.leaves}
    messages = []
    for number in range(num_messages):
        part = slice(number * num_slots, (number + 1) * num_slots)
        messages.append(
            {
                name: np.ascontiguousarray(array[part] if rows[name] == "none" else array[:, part])
                for name, array in columns.items()
            }
        )
    return UnrollSource(spec, num_slots, tuple(messages))


def _play(environment: Any, spec: UnrollSpec) -> dict[str, Array]:  # Any: an EnvironmentAdapter
    random = np.random.default_rng(1)
    num_slots = environment.num_slots
    num_actions = spec.environment.action.num_logits
    observations = environment.reset(seed=1)
    is_first = np.ones(num_slots, np.bool_)
    builder = UnrollBuilder(spec, num_slots)
    for step in range(_WARM_UP_STEPS + spec.unroll_length):
        if step == _WARM_UP_STEPS:
            nothing = np.zeros(num_slots, np.int64), np.zeros(num_slots, np.float32)
            builder.begin(observations, is_first, (), *nothing)
        logits = random.standard_normal((num_slots, num_actions)).astype(np.float32)
        decision = PolicyStep(random.integers(0, num_actions, num_slots), logits)
        result = environment.step(decision.actions)
        if step >= _WARM_UP_STEPS:
            builder.add(decision, result)
        observations, is_first = result.observations, result.is_first
    return builder.unrolls


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
    messages = tuple(make_unrolls(spec, num_slots, seed) for seed in range(num_messages))
    return UnrollSource(spec, num_slots, messages)
