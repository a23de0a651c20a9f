"""Specifications to messages and back; hostile ones are refused at once."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common.codec.specs import (
    pack_environment_options,
    pack_environment_spec,
    pack_model_spec,
    pack_tensor_spec,
    pack_unroll_spec,
    unpack_environment_spec,
    unpack_model_spec,
    unpack_tensor_spec,
    unpack_unroll_spec,
)
from impala_common.config import EnvironmentConfig
from impala_common.errors import InvalidRequestError
from impala_common.spec.specs import (
    DTYPES,
    ActionPart,
    ActionSpec,
    EnvironmentSpec,
    ModelSpec,
    OneHotLeaf,
    TensorSpec,
    UnrollSpec,
)
from impala_common.testing.unrolls import make_vector_spec
from impala_rl.v1 import spec_pb2, tensor_pb2

SHAPES = st.lists(st.integers(1, 6), max_size=6).map(tuple)
NAMES = st.text(min_size=1, max_size=20)
DTYPE = st.sampled_from(DTYPES)
INT64 = st.integers(-(2**63), 2**63 - 1)
TENSOR_SPECS = st.builds(TensorSpec, NAMES, SHAPES, DTYPE)


@st.composite
def environment_specs(draw: st.DrawFn) -> EnvironmentSpec:
    shape = draw(SHAPES)
    names = sorted(draw(st.sets(NAMES, min_size=1, max_size=4)))
    if draw(st.booleans()):
        leaves = tuple(TensorSpec(f"observation/{name}", shape, draw(DTYPE)) for name in names)
        stack = 0
    else:
        leaves = (TensorSpec("observation", shape, draw(DTYPE)),)
        stack = draw(st.sampled_from([0, *shape[:1]]))
    return EnvironmentSpec(leaves, draw(action_specs()), stack)


@st.composite
def action_parts(draw: st.DrawFn, name: str) -> ActionPart:
    kind = draw(st.sampled_from(["categorical", "bernoulli", "gaussian"]))
    shape = draw(st.lists(st.integers(1, 3), max_size=3).map(tuple))
    num = math.prod(shape)
    if kind == "gaussian":
        bounds = st.floats(allow_nan=False, allow_infinity=False)
        pairs = [sorted(draw(st.tuples(bounds, bounds))) for _ in range(num)]
        # Only a low may be -inf, and only a high inf: no Box has others.
        lows = tuple(draw(st.sampled_from([low, -math.inf])) for low, _ in pairs)
        highs = tuple(draw(st.sampled_from([high, math.inf])) for _, high in pairs)
        dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
        return ActionPart(name, kind, shape, dtype, lows=lows, highs=highs)
    dtype = draw(st.sampled_from(["bool", "uint8", "int8", "int32", "int64"]))
    if kind == "bernoulli":
        return ActionPart(name, kind, shape, dtype)
    sizes = draw(st.lists(st.integers(1, 2**8), min_size=num, max_size=num).map(tuple))
    starts = draw(st.lists(INT64, min_size=num, max_size=num).map(tuple))
    return ActionPart(name, kind, shape, dtype, sizes, starts)


@st.composite
def action_specs(draw: st.DrawFn) -> ActionSpec:
    if draw(st.booleans()):
        return ActionSpec.discrete(draw(st.integers(1, 2**16)), draw(INT64))
    if draw(st.booleans()):
        return ActionSpec((draw(action_parts("action")),))
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    return ActionSpec(tuple(draw(action_parts(f"action/{name}")) for name in names))


MODEL_SPECS = st.builds(
    ModelSpec,
    name=NAMES,
    hidden_sizes=st.lists(st.integers(1, 2**31 - 1), max_size=4).map(tuple),
    feature_dim=st.integers(0, 2**31 - 1),
    hidden_dim=st.integers(0, 2**31 - 1),
    recurrence=st.sampled_from(["none", "lstm", "gru"]),
    init_method=NAMES,
    activation=NAMES,
    use_previous_action_and_reward=st.booleans(),
    observation_scale=st.floats(allow_nan=False),
    normalise_observations=st.booleans(),
    observation_clip=st.floats(allow_nan=False),
    normalise_rewards=st.booleans(),
    log_std_init=st.floats(allow_nan=False),
    normalise_integers=st.booleans(),
)


def through_the_wire(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@given(spec=TENSOR_SPECS)
@settings(max_examples=100, deadline=None)
def test_unpack_tensor_spec_of_packed_one_gives_it_back(spec: TensorSpec) -> None:
    assert unpack_tensor_spec(through_the_wire(pack_tensor_spec(spec))) == spec


@given(spec=environment_specs())
@settings(max_examples=100, deadline=None)
def test_unpack_environment_spec_of_packed_one_gives_it_back(spec: EnvironmentSpec) -> None:
    assert unpack_environment_spec(through_the_wire(pack_environment_spec(spec))) == spec
    assert (
        EnvironmentSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec
    )


@given(
    environment=environment_specs(),
    unroll_length=st.integers(1, 10_000),
    state_shapes=st.lists(SHAPES, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_unpack_unroll_spec_of_packed_one_gives_it_back(
    environment: EnvironmentSpec, unroll_length: int, state_shapes: list[tuple[int, ...]]
) -> None:
    state = tuple(
        TensorSpec(f"initial_agent_state/{k}", shape, "float32")
        for k, shape in enumerate(state_shapes)
    )
    spec = UnrollSpec(unroll_length, environment, state)

    assert unpack_unroll_spec(through_the_wire(pack_unroll_spec(spec)), environment) == spec


@given(spec=MODEL_SPECS)
@settings(max_examples=100, deadline=None)
def test_unpack_model_spec_of_packed_one_gives_it_back(spec: ModelSpec) -> None:
    assert unpack_model_spec(through_the_wire(pack_model_spec(spec))) == spec


@pytest.mark.parametrize("sticky", [None, 0.0, 0.25])
def test_pack_environment_options_says_all_but_the_id(sticky: float | None) -> None:
    config = EnvironmentConfig(
        env="evil_module:Env-v0",
        atari_frame_skip=3,
        atari_frame_stack=2,
        atari_episodic_life=True,
        atari_fire_reset=False,
        atari_noop_max=7,
        atari_sticky_action_probability=sticky,
    )

    options = through_the_wire(pack_environment_options(config))

    for field in options.DESCRIPTOR.fields:
        is_set = not field.has_presence or options.HasField(field.name)
        got = getattr(options, field.name) if is_set else None
        assert got == getattr(config, field.name), field.name
    assert b"evil" not in options.SerializeToString()


@pytest.mark.parametrize(
    "shape",
    [
        (-1,),
        (0,),
        (4, 0, 4),
        (-2, -2),
        (2**28 + 1,),
        (2**32, 2**32),  # the product is 0 in 64 bits
        (2**62, 4),
        (2**63 - 1,) * 6,
        (1,) * 7,
    ],
)
def test_unpack_tensor_spec_of_hostile_shape_is_refused(shape: tuple[int, ...]) -> None:
    message = tensor_pb2.TensorSpec(name="x", dtype=tensor_pb2.DTYPE_UINT8, shape=shape)

    with pytest.raises(InvalidRequestError, match=r"'x': shape .* must have at most 6 positive"):
        unpack_tensor_spec(message)


@pytest.mark.timeout(10)
def test_unpack_tensor_spec_of_a_million_dimensions_is_refused_at_once() -> None:
    """Seen to time out when the product was formed before the rank was looked at."""
    message = tensor_pb2.TensorSpec(name="x", dtype=tensor_pb2.DTYPE_UINT8, shape=[3] * 1_000_000)

    with pytest.raises(InvalidRequestError) as caught:
        unpack_tensor_spec(message)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("dtype", [tensor_pb2.DTYPE_UNSPECIFIED, 13, -1])
def test_unpack_tensor_spec_of_unknown_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"'x': unknown dtype {dtype}"):
        unpack_tensor_spec(tensor_pb2.TensorSpec(name="x", dtype=dtype))


def action_part_message(**changes: Any) -> spec_pb2.ActionPart:
    """Returns a good message (two choices) with some fields replaced."""
    names = ("name", "shape", "dtype")
    tensor = {"name": "action", "shape": (), "dtype": "int64"}
    tensor |= {name: changes.pop(name) for name in names if name in changes}
    fields = {"kind": spec_pb2.ACTION_KIND_CATEGORICAL, "sizes": [2], "starts": [0]} | changes
    return spec_pb2.ActionPart(tensor=pack_tensor_spec(TensorSpec(**tensor)), **fields)


GAUSSIAN = {
    "kind": spec_pb2.ACTION_KIND_GAUSSIAN,
    "dtype": "float32",
    "sizes": [],
    "starts": [],
    "lows": [0.0],
    "highs": [1.0],
}


def environment_message(**changes: Any) -> spec_pb2.EnvironmentSpec:
    """Returns a good message (one vector, two actions) with some fields replaced."""
    leaves = [TensorSpec(name, (4,), "float32") for name in changes.pop("names", ["observation"])]
    parts = [action_part_message(**part) for part in changes.pop("parts", [{}])]
    fields = {"action": spec_pb2.ActionSpec(parts=parts), "frame_stack": 0} | changes
    return spec_pb2.EnvironmentSpec(
        observation_leaves=[pack_tensor_spec(leaf) for leaf in leaves], **fields
    )


def one_hot_message(**changes: Any) -> spec_pb2.OneHotLeaf:
    """Returns a good message for the vector above, of two integers, with some fields replaced."""
    fields = {"name": "observation", "shape": [2], "starts": [0, -1], "sizes": [3, 1]}
    return spec_pb2.OneHotLeaf(**(fields | changes))


def test_integers_of_one_hot_leaves_survive_the_wire_and_files() -> None:
    message = environment_message(one_hot_leaves=[one_hot_message()])

    spec = unpack_environment_spec(message)
    assert spec.one_hot_leaves == (OneHotLeaf("observation", (2,), (0, -1), (3, 1)),)
    assert pack_environment_spec(spec) == message
    data = json.loads(json.dumps(spec.to_json()))
    assert EnvironmentSpec.from_json(data) == spec
    del data["one_hot_leaves"]  # as earlier versions write it
    assert EnvironmentSpec.from_json(data) == dataclasses.replace(spec, one_hot_leaves=())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"names": []}, "observation_leaves: expected 1 to 256"),
        ({"names": [f"observation/{k:04}" for k in range(257)]}, "observation_leaves: expected 1"),
        ({"names": ["observation/b", "observation/a"]}, "distinct sorted names"),
        ({"names": ["observation", "observation"]}, "distinct sorted names"),
        ({"names": ["actions"]}, "distinct sorted names"),
        ({"names": [""]}, "distinct sorted names"),
        ({"names": ["initial_agent_state/0", "observation"]}, "distinct sorted names"),
        ({"parts": []}, "action: expected 1 to 256 parts, got 0"),
        ({"parts": [{"name": f"action/{k}"} for k in range(257)]}, "1 to 256 parts, got 257"),
        ({"parts": [{}, {}]}, "parts of distinct names"),
        ({"parts": [{"name": "x"}]}, "'x': expected the name of a part"),
        ({"parts": [{"kind": 0}]}, "'action': unknown kind of action 0"),
        ({"parts": [{"sizes": [0]}]}, "'action': expected sizes of at least 1, got 0"),
        ({"parts": [{"sizes": [-3]}]}, "'action': expected sizes of at least 1, got -3"),
        ({"parts": [{"sizes": [65537]}]}, "action: expected at most 65536 logits, got 65537"),
        ({"parts": [{"sizes": [2, 2]}]}, "'action': expected 1 sizes and starts"),
        ({"parts": [{"starts": []}]}, "'action': expected 1 sizes and starts"),
        ({"parts": [{"shape": (1 << 28,)}]}, "expected 268435456 sizes and starts"),
        ({"parts": [{"shape": (0,)}]}, "positive dimensions"),
        ({"parts": [{"dtype": "float32"}]}, "categorical actions are no float32"),
        ({"parts": [{"lows": [0.0]}]}, "expected 0 lows and highs"),
        ({"parts": [GAUSSIAN | {"dtype": "int64"}]}, "gaussian actions are no int64"),
        ({"parts": [GAUSSIAN | {"lows": []}]}, "expected 1 lows and highs"),
        ({"parts": [GAUSSIAN | {"lows": [2.0]}]}, "lows that are at most highs"),
        ({"parts": [GAUSSIAN | {"highs": [float("nan")]}]}, "lows that are at most highs"),
        ({"parts": [GAUSSIAN | {"lows": [math.inf], "highs": [math.inf]}]}, "lows below inf"),
        ({"parts": [GAUSSIAN | {"lows": [-math.inf], "highs": [-math.inf]}]}, "highs above -inf"),
        ({"frame_stack": -1}, "frame_stack: -1"),
        ({"frame_stack": 3}, "frame_stack: 3 must be dimension 0"),
        ({"frame_stack": 4, "names": ["observation/a", "observation/b"]}, "frame_stack: 4"),
        ({"one_hot_leaves": [one_hot_message()] * 2}, "one_hot_leaves: 'observation': expected on"),
        ({"one_hot_leaves": [one_hot_message(name="x")]}, "one_hot_leaves: 'x': expected once"),
        ({"one_hot_leaves": [one_hot_message(sizes=[3, 2])]}, "for a leaf float32"),
        ({"one_hot_leaves": [one_hot_message(sizes=[4, 0])]}, "a size of at least 1"),
        ({"one_hot_leaves": [one_hot_message(starts=[0])]}, "a start and a size"),
        ({"one_hot_leaves": [one_hot_message(shape=[3])]}, "a start and a size"),
    ],
)
def test_unpack_environment_spec_of_hostile_one_is_refused(
    changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        unpack_environment_spec(environment_message(**changes))


def test_unpack_unroll_spec_of_leaves_this_version_does_not_know_is_refused() -> None:
    spec = make_vector_spec()
    message = pack_unroll_spec(spec)
    message.leaves[3].rows += 1

    with pytest.raises(InvalidRequestError, match="not those this version knows"):
        unpack_unroll_spec(message, spec.environment)


def test_unpack_unroll_spec_for_another_environment_is_refused() -> None:
    spec = make_vector_spec()
    other = dataclasses.replace(spec.environment, action=ActionSpec.discrete(9))

    with pytest.raises(InvalidRequestError, match="not those this version knows"):
        unpack_unroll_spec(pack_unroll_spec(spec), other)
