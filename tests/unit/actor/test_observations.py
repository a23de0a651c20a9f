"""Every kind of observation space through every autoreset mode, and the refusals.

Seen to fail with: leaves in the order of the space in place of sorted names, slashes in keys left
as they are, `start` of Discrete not subtracted, one-hot vectors of a MultiDiscrete all beginning
at 0, and with SAME_STEP the reset observation in place of the final one in nested spaces.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.observations import (
    MAX_ONE_HOT,
    ObservationEncoder,
    list_observation_parts,
)
from impala_actor.environments.slots import adapt, make_slots
from impala_common.errors import SpecMismatchError, UnsupportedSpaceError

MODES = pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
NESTED = spaces.Dict(
    {
        "time": spaces.Box(-1, 100, (), np.int16),
        "a/b%": spaces.Tuple((spaces.Discrete(200, start=-1), spaces.MultiDiscrete([[2, 30]]))),
        "bits": spaces.MultiBinary((2, 2)),
        "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    }
)
LEAVES = {
    "observation/a%2Fb%25/0": ((200,), "float32"),
    "observation/a%2Fb%25/1": ((32,), "float32"),
    "observation/bits": ((2, 2), "int8"),
    "observation/image": ((4, 4, 3), "uint8"),
    "observation/time": ((), "int16"),
}
LENGTHS = (3, 4, 1)


class NestedEnv(gymnasium.Env[Any, np.int64]):
    """Counts: time t and episode can be read off every part."""

    def __init__(self, length: int) -> None:
        self.observation_space = NESTED
        self.action_space = spaces.Discrete(2)
        self._length, self._t, self._episode = length, 0, -1

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        self._episode += 1
        return self._observe(), {}

    def step(self, _: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        return self._observe(), 0.0, False, self._t == self._length, {}

    def _observe(self) -> dict[str, Any]:
        t, episode = self._t, self._episode
        return {
            "time": np.int16(t),
            "a/b%": (np.int64(t - 1), np.array([[t % 2, episode]])),
            "bits": np.array([[t & 1, t & 2], [t & 4, 1]]).astype(bool).astype(np.int8),
            "image": np.full((4, 4, 3), t, np.uint8),
        }


def read(observations: dict[str, Any], slot: int) -> list[int]:
    """Returns time and episode that the observation shows, having found all parts to agree."""
    one = {name: leaf[slot] for name, leaf in observations.items()}
    t = int(one["observation/time"])
    assert one["observation/a%2Fb%25/0"].tolist() == np.eye(200)[t].tolist()
    pair = one["observation/a%2Fb%25/1"]
    assert pair[:2].tolist() == np.eye(2)[t % 2].tolist()
    assert pair.sum() == 2
    assert one["observation/bits"].tolist() == [[t & 1, (t & 2) // 2], [(t & 4) // 4, 1]]
    assert (one["observation/image"] == t).all()
    return [t, int(pair[2:].argmax())]


def check_types(observations: dict[str, Any], num_slots: int) -> None:
    found = {name: (leaf.shape, leaf.dtype.name) for name, leaf in observations.items()}
    assert list(found) == list(LEAVES)
    assert found == {name: ((num_slots, *shape), dtype) for name, (shape, dtype) in LEAVES.items()}


@MODES
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_nested_observations_in_any_autoreset_mode_align(mode: AutoresetMode, kind: Any) -> None:
    makers = [lambda length=length: NestedEnv(length) for length in LENGTHS]
    environment = adapt(kind(makers, copy=False, autoreset_mode=mode))

    observations = environment.reset(1)
    seen: list[list[Any]] = [[read(observations, slot)] for slot in range(3)]
    paddings: list[list[bool]] = [[] for _ in range(3)]
    for _ in range(12):
        step = environment.step(np.zeros(3, np.int64))
        check_types(step.observations, 3)
        for slot in range(3):
            if step.final_observations is not None and step.is_first[slot]:
                check_types(step.final_observations, 3)
                seen[slot].append(read(step.final_observations, slot))
                paddings[slot].append(False)
            seen[slot].append(read(step.observations, slot))
            paddings[slot].append(bool(step.is_padding[slot]))
    environment.close()

    for length, slot_seen, slot_paddings in zip(LENGTHS, seen, paddings, strict=True):
        first_episode = slot_seen[0][1]
        real = [slot_seen[0]]
        real += [
            now
            for before, now, is_padding in zip(
                slot_seen, slot_seen[1:], slot_paddings, strict=False
            )
            if not is_padding or now != before
        ]
        # Every time of every episode, the final one included, in order.
        assert real == [
            [number % (length + 1), first_episode + number // (length + 1)]
            for number in range(len(real))
        ]
        assert len(real) > 5


def test_leaves_of_nested_space_are_named_by_their_path_and_sorted() -> None:
    parts = list_observation_parts(NESTED)

    assert {part.leaf.name: (part.leaf.shape, part.leaf.dtype) for part in parts} == LEAVES
    names = [part.leaf.name for part in parts]
    assert names == sorted(names)


def test_leaves_of_a_long_tuple_are_sorted_as_text() -> None:
    space = spaces.Tuple([spaces.Box(0, 20, (1,), np.uint8) for _ in range(12)])

    encoded = ObservationEncoder(space, 1)(tuple(np.full((1, 1), n, np.uint8) for n in range(12)))

    assert list(encoded)[:4] == [f"observation/{n}" for n in ("0", "1", "10", "11")]
    assert {name: int(leaf[0, 0]) for name, leaf in encoded.items()} == {
        f"observation/{n}": n for n in range(12)
    }


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2, 1, 2, 3)])
def test_plain_box_is_its_own_leaf(dtype: str, shape: tuple[int, ...]) -> None:
    space = spaces.Box(0, 1, shape, dtype)  # type: ignore[call-overload]

    (part,) = list_observation_parts(space)

    assert (part.leaf.name, part.leaf.shape, part.leaf.dtype) == ("observation", shape, dtype)
    assert not ObservationEncoder(space, 2).is_needed


def test_taxi_is_one_hot_of_500() -> None:
    from impala_actor.environments.factory import make_environment

    environment = make_environment("Taxi-v4", 2)
    observation = environment.reset(0)["observation"]
    environment.close()

    assert observation.shape == (2, 500)
    assert observation.sum(1).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Dict({"mission": spaces.Text(5)}), "observation/mission of the.*Text.*env-wrapper"),
        (spaces.Tuple((spaces.Sequence(spaces.Discrete(2)),)), "observation/0 .*Sequence"),
        (spaces.Graph(spaces.Discrete(2), None), "observation of the observation space, Graph"),
        (spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))), "OneOf"),
        (spaces.Dict({"x": spaces.Box(0, 1, (2,), np.longdouble)}), "observation/x .*float128"),
        (spaces.Box(0, 1, (1,) * 7), "at most 6 dimensions"),
        (spaces.Box(0, 1, (2, 0)), "no elements"),
        (spaces.Dict({"x": spaces.Dict({})}), "observation/x .*no parts"),
        (spaces.Tuple(()), "no parts"),
        (spaces.Dict({"": spaces.Discrete(2)}), "keys must be strings"),
        (spaces.Dict({3: spaces.Discrete(2)}), "has the key 3"),  # type: ignore[dict-item]
        (spaces.Discrete(MAX_ONE_HOT + 1), "4097 numbers, more than 4096"),
        (spaces.MultiDiscrete([4000, 97]), "4097"),
        (spaces.Tuple([spaces.Discrete(2)] * 257), "257 parts"),
    ],
)
def test_unsupported_space_is_refused_by_the_name_of_its_part(space: Any, expected: str) -> None:
    with pytest.raises(UnsupportedSpaceError, match=expected):
        list_observation_parts(space)


class BrokenEnv(NestedEnv):
    """Shows a wrong observation from step `wrong_at` on; 0 is the reset."""

    def __init__(self, changes: dict[str, Any], wrong_at: int) -> None:
        super().__init__(100)
        self._changes = changes
        self._wrong_at = wrong_at

    def _observe(self) -> dict[str, Any]:
        observation = super()._observe()
        if self._t >= self._wrong_at:
            observation = observation | self._changes
        return {key: value for key, value in observation.items() if value is not None}


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"image": np.zeros((4, 5, 3), np.uint8)}, r"observation/image\.shape .*\(4, 4, 3\)"),
    ({"image": np.zeros((4, 4, 3))}, r"observation/image\.dtype of the .*uint8, got float64"),
    ({"time": None}, "observation/time of the environment: expected an observation with 'time'"),
    ({"a/b%": (np.int64(0),)}, "observation/a%2Fb%25/1 of the environment"),
    ({"bits": "10"}, "observation/bits"),
]


@pytest.mark.parametrize(("changes", "expected"), BROKEN)
@pytest.mark.parametrize("wrong_at", [0, 1, 4])
def test_observation_that_breaks_its_space_is_named(
    changes: dict[str, Any], wrong_at: int, expected: str
) -> None:
    """Seen to fail without the look at the slots after the failure (wrong_at 4)."""
    environment = make_slots("broken", lambda: BrokenEnv(changes, wrong_at), 2, "sync")

    with pytest.raises(SpecMismatchError, match=expected):
        play(environment, 5)


@pytest.mark.parametrize("wrong_at", [0, 3])
def test_observation_that_breaks_its_space_in_another_process_is_named(wrong_at: int) -> None:
    """Seen to fail with SpecMismatchError itself raised in the slot's process."""
    changes, expected = BROKEN[0]
    environment = make_slots("broken", lambda: BrokenEnv(changes, wrong_at), 2, "async")

    with pytest.raises(SpecMismatchError, match=expected):
        play(environment, 5)
    environment.close()


class WideIntegers(NestedEnv):
    """Integers of a wider type than its space has; from step `wrong_at` on one does not fit."""

    def __init__(self, kinds: tuple[str, str], wrong_at: int) -> None:
        super().__init__(100)
        self.observation_space = spaces.Box(0, 100, (2,), np.dtype(kinds[0]))  # type: ignore[assignment]
        self._kind = kinds[1]
        self._wrong_at = wrong_at

    def _observe(self) -> Any:
        return np.array([1, 2**16 if self._t >= self._wrong_at else 2], self._kind)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("wrong_at", [0, 1, 4])
@pytest.mark.parametrize("kinds", [("uint8", "uint32"), ("int16", "int64"), ("int8", "uint32")])
def test_integer_that_the_space_cannot_hold_is_named(
    kinds: tuple[str, str], wrong_at: int, vectorization: Any
) -> None:
    """Seen to fail without the comparison: 65536 arrived as 0."""
    environment = make_slots("wide", lambda: WideIntegers(kinds, wrong_at), 1, vectorization)

    with pytest.raises(SpecMismatchError, match=rf"numbers that {kinds[0]} holds, got .*65536"):
        play(environment, 5)
    environment.close()


def test_integers_of_a_wider_type_that_fit_are_cast() -> None:
    environment = make_slots("wide", lambda: WideIntegers(("uint8", "uint32"), 100), 1, "sync")

    assert environment.reset(0)["observation"].tolist() == [[1, 2]]


@MODES
def test_broken_observation_of_a_foreign_vector_environment_is_named(mode: AutoresetMode) -> None:
    makers = [lambda: BrokenEnv({"image": np.zeros(3, np.uint8)}, 2)] * 2
    environment = adapt(SyncVectorEnv(makers, autoreset_mode=mode))

    with pytest.raises(SpecMismatchError, match=r"observation/image\.shape"):
        play(environment, 5)


def test_value_outside_of_a_discrete_space_is_named() -> None:
    changes = {"a/b%": (np.int64(199), np.array([[0, 0]]))}
    environment = make_slots("broken", lambda: BrokenEnv(changes, 3), 1, "sync")

    with pytest.raises(SpecMismatchError, match=r"/0 of the environment: .*from \[-1\] to \[198\]"):
        play(environment, 5)


@pytest.mark.parametrize(
    ("observation", "named"),
    [
        (np.zeros((2, 4)), "dtype"),
        (np.zeros((2, 3), np.float32), "shape"),
        ([[0.0] * 4] * 2, "an array, got list"),
    ],
)
def test_plain_observation_that_breaks_its_space_is_named(observation: Any, named: str) -> None:
    vector_env = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2)
    environment = adapt(vector_env)
    environment.reset(0)
    ends = np.zeros(2, np.bool_)
    vector_env.step = lambda _: (observation, np.zeros(2), ends, ends, {})  # type: ignore[method-assign]

    with pytest.raises(SpecMismatchError, match=rf"observation.*{named}"):
        environment.step(np.zeros(2, np.int64))


def play(environment: EnvironmentAdapter, num_steps: int) -> None:
    environment.reset(0)
    for _ in range(num_steps):
        environment.step(np.zeros(environment.num_slots, np.int64))
