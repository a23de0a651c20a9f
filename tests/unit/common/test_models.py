"""The networks through their contract: shapes, seeds, choice by observation, inputs used."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from impala_common.config.sections import INIT_METHODS, ModelConfig
from impala_common.errors import ConfigError
from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.models.inputs import append_previous_step, find_image_layout
from impala_common.models.minatar_cnn import MinAtarCnnEncoder
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.spec.specs import OBSERVATION, ActionSpec, EnvironmentSpec, TensorSpec

torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other

SIX, TWO = ActionSpec.discrete(6), ActionSpec.discrete(2)
VECTOR = EnvironmentSpec((TensorSpec(OBSERVATION, (4,), "float32"),), ActionSpec.discrete(3))
MIXED = EnvironmentSpec(
    (TensorSpec("a", (2, 3), "float32"), TensorSpec("b", (), "int64")), ActionSpec.discrete(3)
)
ATARI = EnvironmentSpec((TensorSpec(OBSERVATION, (4, 84, 84), "uint8"),), SIX, frame_stack=4)
MINATAR = EnvironmentSpec((TensorSpec(OBSERVATION, (10, 10, 7), "bool"),), SIX)
SMALL_RGB = EnvironmentSpec((TensorSpec(OBSERVATION, (16, 20, 3), "uint8"),), TWO)
LARGE_RGB = EnvironmentSpec((TensorSpec(OBSERVATION, (96, 96, 3), "uint8"),), TWO)
TINY_RGB = EnvironmentSpec((TensorSpec(OBSERVATION, (2, 2, 3), "uint8"),), TWO)
STACKED_RGB = EnvironmentSpec((TensorSpec(OBSERVATION, (2, 4, 4, 3), "uint8"),), TWO)
MULTI = EnvironmentSpec(
    (
        TensorSpec("observation/camera", (3, 40, 40), "uint8"),
        TensorSpec("observation/grid", (5, 4, 2), "float32"),
        TensorSpec("observation/map", (3, 3), "uint8"),
        TensorSpec("observation/speed", (), "float64"),
        TensorSpec("observation/steps", (2,), "uint16"),
        TensorSpec("observation/tiny", (2, 2, 3), "uint8"),
    ),
    TWO,
)
MAP_AND_SPEED = EnvironmentSpec(MULTI.observation_leaves[2:4], TWO)
BYTES = EnvironmentSpec((TensorSpec(OBSERVATION, (128,), "uint8"),), TWO)
SMALL = ModelConfig(hidden_sizes=(16, 16), feature_dim=32, hidden_dim=8)
NUM_STATES = {"none": 0, "lstm": 2, "gru": 1}
NETWORKS = {
    "mlp": (VECTOR, "mlp"),
    "mlp_mixed": (MIXED, "mlp"),
    "nature_cnn": (ATARI, "nature_cnn"),
    "minatar_cnn": (MINATAR, "minatar_cnn"),
    "impala_resnet": (MINATAR, "impala_resnet"),
    "multi": (MULTI, "multi"),
}


def make_inputs(
    environment: EnvironmentSpec, num_rows: int, num_columns: int, seed: int = 1
) -> ModelInputs:
    generator = torch.Generator().manual_seed(seed)
    rows = (num_rows, num_columns)
    observations = {}
    for leaf in environment.observation_leaves:
        dtype = getattr(torch, leaf.dtype)
        noise = torch.randn(*rows, *leaf.shape, generator=generator)
        observations[leaf.name] = (
            noise if dtype.is_floating_point else (noise.abs() * 40 > 25).to(dtype)
        )
    is_first = torch.rand(rows, generator=generator) < 0.2
    rewards = torch.randn(rows, generator=generator).masked_fill(is_first, 0.0)
    actions = torch.randint(0, environment.action.num_logits, rows, generator=generator)
    return ModelInputs(observations, is_first, actions, rewards)


def take_rows(inputs: ModelInputs, start: int, end: int) -> ModelInputs:
    observations = {name: leaf[start:end] for name, leaf in inputs.observations.items()}
    return ModelInputs(observations, *(tensor[start:end] for tensor in inputs[1:]))


def make(environment: EnvironmentSpec, seed: int = 1, **changes: object) -> AgentModel:
    config = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    return make_model(resolve_model_spec(config, environment), environment, seed)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("recurrence", ["none", "lstm", "gru"])
@pytest.mark.parametrize("use_previous", [False, True])
@torch.no_grad()
def test_model_forward_has_contract_shapes_and_equals_acting_row_by_row(
    name: str, recurrence: str, use_previous: bool
) -> None:
    """Learner and actor see one network. Planted: values viewed as [B, T];
    state not returned by act; previous action left out in act.
    """
    environment, model_name = NETWORKS[name]
    model = make(
        environment,
        model=model_name,
        recurrence=recurrence,
        use_previous_action_and_reward=use_previous,
    )
    inputs = make_inputs(environment, num_rows=4, num_columns=3)

    outputs = model(inputs, model.initial_state(3))

    assert outputs.policy_logits.shape == (4, 3, environment.action.num_logits)
    assert outputs.values.shape == (4, 3)
    assert outputs.policy_logits.dtype == outputs.values.dtype == torch.float32
    state = model.initial_state(3)
    assert [tuple(tensor.shape) for tensor in state] == [(1, 3, 8)] * NUM_STATES[recurrence]
    assert [spec.shape for spec in model.agent_state_specs()] == [(1, 8)] * len(state)
    assert [spec.name for spec in model.agent_state_specs()] == [
        f"initial_agent_state/{index}" for index in range(len(state))
    ]
    for t in range(4):
        row = take_rows(inputs, t, t + 1)
        value = model(row, state).values
        policy_logits, state = model.act(row, state)
        torch.testing.assert_close(policy_logits[0], outputs.policy_logits[t], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(value[0], outputs.values[t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("head", ["policy_head", "value_head"])
def test_model_every_parameter_of_a_trunk_learns_from_each_head(name: str, head: str) -> None:
    """Planted: the value head fed from a detached encoder; a layer made and never called."""
    environment, model_name = NETWORKS[name]
    model = make(environment, model=model_name, recurrence="lstm")
    inputs = make_inputs(environment, num_rows=3, num_columns=2)

    outputs = model(inputs, model.initial_state(2))
    output = outputs.values if head == "value_head" else outputs.policy_logits.square()
    output.sum().backward()

    other_head = ({"policy_head", "value_head"} - {head}).pop()
    for parameter_name, parameter in model.named_parameters():
        if not parameter_name.startswith(other_head):
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().max() > 0.0, parameter_name


def test_mlp_policy_and_value_share_nothing() -> None:
    """Planted: value head fed by the policy network."""
    model = make(VECTOR)
    outputs = model(make_inputs(VECTOR, 3, 2), ())

    outputs.values.sum().backward()

    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"value_network", "value_head"}
    model.zero_grad()
    model(make_inputs(VECTOR, 3, 2), ()).policy_logits.square().sum().backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"policy_network", "policy_head"}


@pytest.mark.parametrize("init_method", INIT_METHODS)
def test_make_model_same_seed_same_weights_and_global_stream_untouched(init_method: str) -> None:
    """Planted: seeding without fork_rng; the seed ignored."""
    torch.manual_seed(5)
    expected_draw = torch.rand(3)
    torch.manual_seed(5)

    first, again, other = (
        make(MINATAR, seed=seed, init_method=init_method, recurrence="lstm").state_dict()
        for seed in (7, 7, 8)
    )

    assert torch.equal(torch.rand(3), expected_draw)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert list(first) == list(other)


def test_orthogonal_initialisation_has_gains_and_a_nearly_uniform_policy() -> None:
    """Planted: the policy head given the value head's gain."""
    model = make(VECTOR)
    parameters = dict(model.named_parameters())

    hidden = parameters["policy_network.2.weight"]
    torch.testing.assert_close(hidden @ hidden.T, torch.eye(16) * (5 / 3) ** 2)
    head = parameters["policy_head.weight"]
    torch.testing.assert_close(head @ head.T, torch.eye(3) * 1e-4, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(parameters["value_head.weight"].norm(), torch.tensor(1.0))
    assert all(p.abs().max() == 0.0 for name, p in parameters.items() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("environment", "name", "scale"),
    [
        (VECTOR, "mlp", 1.0),
        (MIXED, "mlp", 1.0),
        (ATARI, "nature_cnn", 1.0 / 255.0),
        (MINATAR, "minatar_cnn", 1.0),
        (SMALL_RGB, "minatar_cnn", 1.0 / 255.0),
        (LARGE_RGB, "nature_cnn", 1.0 / 255.0),
        (BYTES, "mlp", 1.0),
        (TINY_RGB, "mlp", 1.0 / 255.0),
        (STACKED_RGB, "mlp", 1.0 / 255.0),
        (MULTI, "multi", 1.0),
        (MAP_AND_SPEED, "multi", 1.0),
    ],
)
def test_resolve_auto_chooses_by_observation(
    environment: EnvironmentSpec, name: str, scale: float
) -> None:
    spec = resolve_model_spec(ModelConfig(), environment)

    assert spec.name == name
    assert spec.observation_scale == pytest.approx(scale)
    chosen = resolve_model_spec(ModelConfig(observation_scale=0.5), environment)
    assert chosen.observation_scale == 0.5


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (VECTOR, "nature_cnn"),
        (MIXED, "minatar_cnn"),
        (MINATAR, "nature_cnn"),
        (VECTOR, "impala_resnet"),
    ],
)
def test_resolve_network_that_does_not_fit_names_the_observation(
    environment: EnvironmentSpec, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"the observation is \{"):
        resolve_model_spec(ModelConfig(model=name), environment)  # type: ignore[arg-type]


def test_image_layout_is_read_off_the_smaller_end() -> None:
    atari, minatar = find_image_layout(ATARI), find_image_layout(MINATAR)

    assert atari is not None
    assert minatar is not None
    assert (atari.num_channels, atari.height, atari.width) == (4, 84, 84)
    assert not atari.has_channels_last
    assert (minatar.num_channels, minatar.height, minatar.width) == (7, 10, 10)
    assert minatar.has_channels_last
    assert find_image_layout(VECTOR) is None


@torch.no_grad()
def test_image_channels_last_and_first_give_one_result() -> None:
    """Planted: view instead of permute for channels-last images."""
    first = EnvironmentSpec((TensorSpec(OBSERVATION, (7, 10, 10), "bool"),), SIX)
    inputs = make_inputs(MINATAR, 2, 3)
    pixels = inputs.observations[OBSERVATION].permute(0, 1, 4, 2, 3)

    outputs = make(MINATAR)(inputs, ())
    moved = make(first)(inputs._replace(observations={OBSERVATION: pixels}), ())

    torch.testing.assert_close(outputs.policy_logits, moved.policy_logits)


@pytest.mark.parametrize("num_rows", [32, 33, 100])
def test_minatar_cnn_computes_its_layers_with_few_rows_and_with_many(num_rows: int) -> None:
    model = make_model(resolve_model_spec(SMALL, MINATAR), MINATAR, seed=1)
    encoder = next(part for part in model.modules() if isinstance(part, MinAtarCnnEncoder))
    pixels = torch.rand(1, num_rows, 10, 10, 7, generator=torch.Generator().manual_seed(2)).round()
    convolution, dense = encoder.convolution[0], encoder.dense[0]
    maps = torch.relu(convolution(pixels[0].permute(0, 3, 1, 2).contiguous()))
    expected = torch.relu(dense(maps.flatten(1)))
    features = encoder({OBSERVATION: pixels.bool()})
    torch.testing.assert_close(features, expected)
    weights = (convolution.weight, dense.weight)
    gradients = torch.autograd.grad(features.square().sum(), weights)
    wanted = torch.autograd.grad(expected.square().sum(), weights)
    # Sums of up to 6,400 float32 products in another order.
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_multi_scales_pixels_and_sees_every_leaf() -> None:
    """Planted: 1/255 left out for the small map; an image encoder given the whole environment."""
    model = make(MULTI, recurrence="none")
    observations = {
        leaf.name: torch.full((1, 1, *leaf.shape), 100.0).to(getattr(torch, leaf.dtype))
        for leaf in MULTI.observation_leaves
    }
    inputs = make_inputs(MULTI, 1, 1)._replace(observations=observations)
    seen: list[Tensor] = []
    layers = [part for part in model.modules() if isinstance(part, torch.nn.Conv2d)]
    layers.append(model.encoder.dense[0])  # type: ignore[union-attr, index]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    values = model(inputs, ()).values

    camera, *_, grid, together = seen
    torch.testing.assert_close(camera, torch.full((1, 3, 40, 40), 100 / 255))
    torch.testing.assert_close(grid, torch.full((1, 2, 5, 4), 100.0))
    # Two images of 32 features, then the map and the tiny image as pixels, then the rest.
    torch.testing.assert_close(together[0, 64:85], torch.full((21,), 100 / 255))
    assert together[0, 85:].tolist() == [100.0] * 3
    for name in observations:
        changed = observations | {name: torch.zeros_like(observations[name])}
        assert not torch.equal(model(inputs._replace(observations=changed), ()).values, values)


def test_observation_scale_applies_and_inputs_are_not_written() -> None:
    """Planted: in-place scaling of float observations; scale ignored."""
    model = make(VECTOR, observation_scale=0.5)
    plain = make(VECTOR)
    inputs = make_inputs(VECTOR, 2, 3)
    halved = {name: leaf * 0.5 for name, leaf in inputs.observations.items()}
    before = inputs.observations[OBSERVATION].clone()

    outputs = model(inputs, ())

    torch.testing.assert_close(
        outputs.values, plain(inputs._replace(observations=halved), ()).values
    )
    assert torch.equal(inputs.observations[OBSERVATION], before)


def test_previous_step_is_one_hot_clipped_and_absent_at_first_rows() -> None:
    """Planted: the mask of first rows left out."""
    inputs = ModelInputs(
        observations={},
        is_first=torch.tensor([[False, True], [False, False]]),
        previous_actions=torch.tensor([[2, 1], [0, 1]]),
        previous_rewards=torch.tensor([[7.0, 0.0], [-0.5, -3.0]]),
    )

    features = append_previous_step(torch.full((4, 1), 9.0), inputs, VECTOR.action)

    assert features.tolist() == [
        [9.0, 0.0, 0.0, 1.0, 1.0],
        [9.0, 0.0, 0.0, 0.0, 0.0],
        [9.0, 1.0, 0.0, 0.0, -0.5],
        [9.0, 0.0, 1.0, 0.0, -1.0],
    ]


@torch.no_grad()
def test_state_dict_loaded_into_another_model_gives_its_outputs() -> None:
    source, target = (
        make(MINATAR, seed=1, recurrence="lstm"),
        make(MINATAR, seed=2, recurrence="lstm"),
    )
    inputs = make_inputs(MINATAR, 3, 2)

    def run(model: AgentModel) -> Tensor:
        values: Tensor = model(inputs, model.initial_state(2)).values
        return values

    assert not torch.equal(run(source), run(target))
    target.load_state_dict(source.state_dict())
    assert torch.equal(run(source), run(target))
