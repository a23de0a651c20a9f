"""Action spaces: to parts and back to actions that the space contains, or refused by name."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_actor.acting.unroll_builder import UnrollBuilder
from impala_actor.environments.actions import ActionDecoder, make_action_spec, make_decode_actions
from impala_actor.environments.gymnasium import adapt
from impala_actor.environments.spaces import make_environment_spec
from impala_common.codec.specs import pack_environment_spec, unpack_environment_spec
from impala_common.codec.unrolls import UnrollDecoder
from impala_common.config.sections import ModelConfig
from impala_common.errors import SpecMismatchError, UnsupportedSpaceError
from impala_common.models.contract import ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.policy import Policy
from impala_common.spec.specs import UnrollSpec, validate_same_environment
from impala_common.testing.unrolls import make_unrolls, pack_stacked

torch.set_num_threads(1)

INFINITY = math.inf
OBSERVATION = spaces.Box(-1.0, 1.0, (3,), np.float32)
SHAPES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
RANKS_OF_ONE_OR_TWO = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)
FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
INTEGERS = st.sampled_from([np.int8, np.uint8, np.int32, np.int64])
N = 5


@st.composite
def float_boxes(draw: st.DrawFn) -> spaces.Box:
    shape, dtype = draw(SHAPES), draw(FLOATS)
    bounds = st.sampled_from([-INFINITY, -1e4, -2.0, -0.1, 0.0, 0.3, 1.0, 7.5, 3e4, INFINITY])
    pairs = [sorted(draw(st.tuples(bounds, bounds))) for _ in range(math.prod(shape))]
    pairs = [pair if pair[0] < INFINITY and pair[1] > -INFINITY else [-1, 1] for pair in pairs]
    low, high = (np.array(side, dtype).reshape(shape) for side in zip(*pairs, strict=True))
    return spaces.Box(low, high, shape, dtype)


@st.composite
def integer_boxes(draw: st.DrawFn) -> spaces.Box:
    low, size = draw(st.integers(0, 100)), draw(st.integers(0, 20))
    return spaces.Box(low, low + size, draw(SHAPES), draw(INTEGERS))


@st.composite
def multi_discretes(draw: st.DrawFn) -> spaces.MultiDiscrete:
    shape = draw(RANKS_OF_ONE_OR_TWO)
    num = math.prod(shape)
    sizes = draw(st.lists(st.integers(1, 5), min_size=num, max_size=num))
    starts = draw(st.lists(st.integers(-9, 9), min_size=num, max_size=num))
    return spaces.MultiDiscrete(
        np.array(sizes).reshape(shape), start=np.array(starts).reshape(shape)
    )


LEAVES = st.one_of(
    st.builds(spaces.Discrete, st.integers(1, 6), start=st.integers(-(2**40), 2**40)),
    multi_discretes(),
    st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 4), RANKS_OF_ONE_OR_TWO)),
    float_boxes(),
    integer_boxes(),
)
ACTION_SPACES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.lists(children, min_size=1, max_size=3).map(
            lambda parts: spaces.Dict(dict(zip("cab", parts, strict=False)))
        ),
        st.lists(children, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


@given(
    space=ACTION_SPACES,
    recurrence=st.sampled_from(["none", "gru"]),
    scale=st.sampled_from([1.0, 30.0]),
    is_greedy=st.booleans(),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:.*Casting input x")  # Gymnasium's, for a scalar of a Box
def test_chosen_actions_travel_and_are_in_the_space(
    space: spaces.Space[Any], recurrence: Any, scale: float, is_greedy: bool
) -> None:
    """From a space to a spec, a network, a policy, an unroll, the wire, and to each slot's action.

    Planted: start not added; bounds not clipped; parts in the order of a Dict's own keys;
    cast to the part's type left out.
    """
    environment = make_environment_spec(OBSERVATION, space)
    assert unpack_environment_spec(pack_environment_spec(environment)) == environment
    config = ModelConfig(
        hidden_sizes=(4,), recurrence=recurrence, use_previous_action_and_reward=True
    )
    model = make_model(resolve_model_spec(config, environment), environment, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    policy = Policy(model, environment.action, N, seed=1)
    spec = UnrollSpec(2, environment, model.agent_state_specs())
    unrolls = make_unrolls(spec, N, seed=2)
    is_first = np.zeros(N, np.bool_)
    for row in range(2):
        decision = policy.act({"observation": unrolls["observation"][row]}, is_first, is_greedy)
        policy.observe(unrolls["rewards"][row], is_first)
        unrolls["actions"][row] = decision.actions
        unrolls["behaviour_policy_logits"][row] = decision.logits
        assert decision.actions.dtype == environment.action.tensor.dtype
    unrolls["previous_action"][:] = policy.previous_action

    decoded = UnrollDecoder(spec, N).decode(pack_stacked(unrolls, spec, compress=False)).leaves
    batch = ActionDecoder(space, environment.action)(decoded["actions"][1])

    np.testing.assert_array_equal(decoded["actions"][1], policy.previous_action)
    assert batch_space(space, N).contains(batch)
    actions = list(iterate(batch_space(space, N), batch))
    assert len(actions) == N
    assert all(space.contains(action) for action in actions)
    inputs = ModelInputs(
        {"observation": torch.tensor(unrolls["observation"])},
        torch.tensor(unrolls["is_first"]),
        torch.tensor(np.concatenate([decoded["previous_action"][None], decoded["actions"]])),
        torch.zeros(3, N),
    )
    logits = model(inputs, model.initial_state(N)).policy_logits
    assert logits.shape == (3, N, environment.action.num_logits)
    assert torch.isfinite(logits).all()


def test_parts_of_a_nested_space_are_named_and_ordered() -> None:
    space = spaces.Dict(
        [
            ("z", spaces.Box(-1.0, INFINITY, (2,), np.float32)),
            ("arm", spaces.Tuple((spaces.Discrete(3, start=4), spaces.MultiBinary((2, 2))))),
        ]
    )

    spec = make_action_spec(space)

    assert [part.name for part in spec.parts] == ["action/arm/0", "action/arm/1", "action/z"]
    assert [part.kind for part in spec.parts] == ["categorical", "bernoulli", "gaussian"]
    assert (spec.num_components, spec.num_logits, spec.num_inputs) == (7, 11, 9)
    assert (spec.tensor.shape, spec.tensor.dtype) == ((7,), "float32")
    batch = ActionDecoder(space, spec)(np.array([[1, 0, 1, 1, 0, 2.5, -2.5]], np.float32))
    assert list(batch) == list(space.spaces)
    assert batch["arm"][0].tolist() == [5]
    assert batch["arm"][1].tolist() == [[[0, 1], [1, 0]]]
    assert batch["z"].tolist() == [[2.5, -1.0]]


@pytest.mark.parametrize(
    ("low", "high", "u", "expected"),
    [
        (-2.0, 2.0, 0.5, 1.0),
        (0.0, 10.0, 0.0, 5.0),
        (0.0, 10.0, 1.0, 10.0),
        (0.0, 10.0, 3.0, 10.0),
        (0.0, 10.0, -9.0, 0.0),
        (-INFINITY, INFINITY, 123.0, 123.0),
        (0.0, INFINITY, 3.0, 3.0),
        (0.0, INFINITY, -3.0, 0.0),
        (5.0, INFINITY, 1.5, 6.5),
        (-INFINITY, -5.0, 1.5, -5.0),
        (-3e38, 3e38, 0.25, 0.25),
        (4.0, 4.0, -1.0, 4.0),
    ],
)
def test_box_action_is_the_clipped_position_in_its_range(
    low: float, high: float, u: float, expected: float
) -> None:
    """Planted: tanh; the range in place of half of it; bounds of 3e38 scaled."""
    space = spaces.Box(low, high, (1,), np.float32)

    action = ActionDecoder(space, make_action_spec(space))(np.array([[u]], np.float32))

    assert action.tolist() == [[expected]]
    assert action.dtype == np.float32


@pytest.mark.parametrize("start", [0, 3])
def test_discrete_needs_decoding_only_for_its_start(start: int) -> None:
    space = spaces.Discrete(4, start=start)

    decode = make_decode_actions(space, make_action_spec(space))

    assert (decode is None) == (start == 0)
    if decode is not None:
        assert decode(np.array([0, 3])).tolist() == [3, 6]


@pytest.mark.parametrize(
    ("space", "texts"),
    [
        (spaces.Text(3), ("action: ", "Text", "gymnasium.ActionWrapper")),
        (spaces.Sequence(spaces.Discrete(2)), ("action: ", "Sequence")),
        (spaces.Graph(spaces.Discrete(2), None), ("action: ", "Graph")),
        (spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))), ("action: ", "OneOf")),
        (spaces.Dict(arm=spaces.Dict(mode=spaces.Text(3))), ("action/arm/mode: ", "Text")),
        (spaces.Tuple((spaces.Discrete(2), spaces.Text(3))), ("action/1: ", "Text")),
        (spaces.Box(-1, 1, (0,)), ("action: ", "not supported")),
        (spaces.Box(0, 5000, (2,), np.int64), ("action: ", "5001", "float Box that rounds")),
        (spaces.Box(-1, 1, (1,), np.longdouble), ("action: ", "not supported")),
        (spaces.Dict({}), ("no parts",)),
        (
            spaces.Dict({1: spaces.Discrete(2), "1": spaces.Discrete(2)}),  # type: ignore[dict-item]
            ("action/%31: ", "rename"),
        ),
        (spaces.MultiDiscrete([40_000, 40_000]), ("80000 logits", "65536")),
    ],
)
def test_unsupported_action_space_names_part_and_way_round(
    space: spaces.Space[Any], texts: tuple[str, ...]
) -> None:
    with pytest.raises(UnsupportedSpaceError) as caught:
        make_action_spec(space)

    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-1, 1, (2,))), "action parts"),
        (spaces.Dict(a=spaces.Discrete(3), c=spaces.Box(-1, 1, (2,))), "action/a.sizes"),
        (spaces.Dict(a=spaces.Discrete(2, start=1), c=spaces.Box(-1, 1, (2,))), "action/a.starts"),
        (spaces.Dict(a=spaces.MultiBinary(1), c=spaces.Box(-1, 1, (2,))), "action/a.kind"),
        (spaces.Dict(a=spaces.Discrete(2), c=spaces.Box(-1, 1, (1, 2))), "action/c.shape"),
        (spaces.Dict(a=spaces.Discrete(2), c=spaces.Box(-2, 1, (2,))), "action/c.lows"),
        (spaces.Dict(a=spaces.Discrete(2), c=spaces.Box(-1, 2, (2,))), "action/c.highs"),
        (
            spaces.Dict(a=spaces.Discrete(2), c=spaces.Box(-1, 1, (2,), np.float64)),
            "action/c.dtype",
        ),
    ],
)
def test_difference_between_action_spaces_names_the_field(
    other: spaces.Space[Any], field: str
) -> None:
    space = spaces.Dict(a=spaces.Discrete(2), c=spaces.Box(-1, 1, (2,)))

    with pytest.raises(SpecMismatchError, match=f"^{field}: "):
        validate_same_environment(
            make_environment_spec(OBSERVATION, space), make_environment_spec(OBSERVATION, other)
        )


class RecordingEnv(gymnasium.Env[Any, Any]):
    """Keeps the actions it was given."""

    observation_space = OBSERVATION
    action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)

    def __init__(self) -> None:
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.actions.append(action.copy())
        return np.zeros(3, np.float32), 0.0, False, False, {}


def test_unroll_holds_the_drawn_action_and_the_environment_gets_it_clipped() -> None:
    """Planted: the clipped action stored; the drawn one handed to the environment."""
    envs = [RecordingEnv() for _ in range(4)]
    mode = gymnasium.vector.AutoresetMode.NEXT_STEP
    vector = gymnasium.vector.SyncVectorEnv(
        [lambda env=env: env for env in envs], autoreset_mode=mode
    )
    environment = adapt(vector)
    model = make_model(resolve_model_spec(ModelConfig(), environment.spec), environment.spec, 1)
    policy = Policy(model, environment.spec.action, 4, seed=3)
    builder = UnrollBuilder(UnrollSpec(50, environment.spec), 4)
    is_first = np.ones(4, np.bool_)

    observations = environment.reset(1)
    builder.begin(observations, is_first, (), policy.previous_action, policy.previous_reward)
    while not builder.is_complete:
        decision = policy.act(observations, is_first)
        step = environment.step(decision.actions)
        policy.observe(step.rewards, step.is_first)
        builder.add(decision, step)
        observations, is_first = step.observations, step.is_first

    stored = builder.unrolls.leaves["actions"]
    given_to_env = np.stack([np.stack(env.actions) for env in envs], axis=1)
    assert np.abs(stored).max() > 1.5  # the first policy is a standard normal
    assert np.abs(given_to_env).max() == 2.0
    np.testing.assert_array_equal(given_to_env, np.clip(2.0 * stored, -2.0, 2.0))
