"""Exported graphs equal the networks: every network with every memory, all kinds of actions.

Run by onnxruntime over several steps, with state and resets. Seen to fail with: state not reset
where is_first, a batch size fixed by the trace, the previous action left out, values and logits
exchanged, statistics of normalisation left at their start, names of source files left in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from impala_common.config.sections import ModelConfig
from impala_common.errors import ConfigError, MissingExtraError
from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.onnx_graph import (
    TOLERANCE,
    PolicyInterface,
    compute_difference,
    make_interface,
    make_onnx,
)
from impala_common.policy.policy import Policy
from impala_common.spec.specs import ActionPart, ActionSpec, EnvironmentSpec, TensorSpec

onnxruntime = pytest.importorskip("onnxruntime")

ACTIONS = {
    "discrete": ActionSpec.discrete(5, start=2),
    "multi_discrete": ActionSpec(
        (ActionPart("action", "categorical", (2,), sizes=(3, 4), starts=(0, 1)),)
    ),
    "multi_binary": ActionSpec((ActionPart("action", "bernoulli", (3,), "int8"),)),
    "box": ActionSpec(
        (ActionPart("action", "gaussian", (2,), "float32", lows=(-1.0, -2.0), highs=(1.0, 2.0)),)
    ),
    "dict": ActionSpec(
        (
            ActionPart("action/a", "categorical", sizes=(3,), starts=(0,)),
            ActionPart("action/b", "gaussian", (1,), "float32", lows=(-1.0,), highs=(1.0,)),
            ActionPart("action/c", "bernoulli", (2,), "int8"),
        )
    ),
}
OBSERVATIONS = {
    "mlp": (TensorSpec("observation/a", (3,), "float64"), TensorSpec("observation/b", (), "int64")),
    "nature_cnn": (TensorSpec("observation", (2, 36, 36), "uint8"),),
    "minatar_cnn": (TensorSpec("observation", (10, 10, 4), "bool"),),
    "impala_resnet": (TensorSpec("observation", (8, 8, 3), "uint8"),),
    "multi": (
        TensorSpec("observation/image", (9, 9, 3), "uint8"),
        TensorSpec("observation/vector", (4,), "float32"),
    ),
}
# Every network of one input with every memory; actions and the other options go round.
CASES = [
    (name, recurrence, action, (index + shift) % 2 == 0)
    for index, (name, actions) in enumerate(
        {
            "mlp": ("box", "dict", "discrete"),
            "nature_cnn": ("discrete", "multi_discrete", "multi_binary"),
            "minatar_cnn": ("multi_binary", "box", "dict"),
            "impala_resnet": ("dict", "discrete", "multi_discrete"),
        }.items()
    )
    for shift, (recurrence, action) in enumerate(zip(("none", "lstm", "gru"), actions, strict=True))
]
# Every network, memory and option once; tracing is slow: the others are for `make test-extended`.
TRIED_ALWAYS = {("mlp", "none"), ("nature_cnn", "lstm"), ("minatar_cnn", "gru"), ("mlp", "gru")}
TRIED_ALWAYS |= {("impala_resnet", "none")}


def make_case(
    name: str, recurrence: str, action: str, with_options: bool
) -> tuple[AgentModel, EnvironmentSpec, PolicyInterface]:
    environment = EnvironmentSpec(OBSERVATIONS[name], ACTIONS[action])
    config = ModelConfig(
        model=name,  # type: ignore[arg-type]
        recurrence=recurrence,  # type: ignore[arg-type]
        hidden_sizes=(8,),
        feature_dim=8,
        hidden_dim=6,
        use_previous_action_and_reward=with_options,
        normalise_observations=with_options and name == "mlp",
    )
    model = make_model(resolve_model_spec(config, environment), environment, seed=3).eval()
    scramble(model)
    return model, environment, make_interface(model, environment, with_options)


def scramble(model: AgentModel) -> None:
    """Gives all weights and statistics numbers that matter: heads begin near zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(noise + 0.5 if "variance" in name else tensor + 0.4 * (noise - 0.5))


@pytest.mark.parametrize(
    ("name", "recurrence", "action", "with_options"),
    [
        pytest.param(*case, marks=[] if case[:2] in TRIED_ALWAYS else pytest.mark.extended)
        for case in CASES
    ],
)
def test_onnx_graph_decides_as_the_policy_does(
    name: str, recurrence: str, action: str, with_options: bool
) -> None:
    model, environment, interface = make_case(name, recurrence, action, with_options)

    data = make_onnx(model, environment, interface)

    for num_slots in (1, 5):
        play_both(data, model, environment, interface, num_slots)
    assert b".py" not in data  # no names of source files


@pytest.mark.parametrize(
    ("action", "recurrence"),
    [
        ("discrete", "none"),
        ("multi_discrete", "gru"),
        pytest.param("discrete", "gru", marks=pytest.mark.extended),
        pytest.param("multi_discrete", "none", marks=pytest.mark.extended),
    ],
)
def test_onnx_graph_of_a_masked_policy_never_prefers_an_illegal_action(
    action: str, recurrence: str
) -> None:
    """Planted: a graph of the network without its mask."""
    num_logits = ACTIONS[action].num_logits
    leaves = (
        TensorSpec("observation/action_mask", (num_logits,), "bool", "action_mask"),
        TensorSpec("observation/state", (3,), "float64"),
    )
    environment = EnvironmentSpec(leaves, ACTIONS[action])
    config = ModelConfig(hidden_sizes=(8,), hidden_dim=6, recurrence=recurrence)  # type: ignore[arg-type]
    model = make_model(resolve_model_spec(config, environment), environment, seed=3).eval()
    scramble(model)
    interface = make_interface(model, environment, False)

    data = make_onnx(model, environment, interface)

    for num_slots in (1, 5):
        play_both(data, model, environment, interface, num_slots)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    mask = np.zeros((1, num_logits), np.bool_)
    mask[0, -1] = True
    inputs = {
        "observation/action_mask": mask,
        "observation/state": np.ones((1, 3)),
        "is_first": np.ones(1, np.bool_),
    } | {spec.name: np.zeros((1, 1, 6), np.float32) for spec in interface.states}
    (logits,) = session.run(["policy_logits"], inputs)
    assert logits[0, -1] > -100.0
    start = 3 if action == "multi_discrete" else 0  # all of a part without a legal one is legal
    assert (logits[0, start:-1] <= -1e9).all()


def play_both(
    data: bytes,
    model: AgentModel,
    environment: EnvironmentSpec,
    interface: PolicyInterface,
    num_slots: int,
) -> None:
    """Plays an imagined game with the policy that actors run and, beside it, with the graph."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == interface.input_names
    policy = Policy(model, environment.action, num_slots, seed=1)
    random = np.random.default_rng(2)
    states = {spec.name: np.zeros((1, num_slots, 6), np.float32) for spec in interface.states}
    assert len(states) == len(policy.agent_state)
    is_first = np.ones(num_slots, np.bool_)
    for _ in range(5):
        observations = {
            leaf.name: draw(leaf, num_slots, random) for leaf in environment.observation_leaves
        }
        inputs: dict[str, Any] = observations | {"is_first": is_first} | states
        if "previous_action" in interface.input_names:
            inputs["previous_action"] = policy.previous_action
            inputs["previous_reward"] = policy.previous_reward
        outputs = dict(zip(interface.output_names, session.run(None, inputs), strict=True))
        step = policy.act(observations, is_first)

        assert compute_difference(step.logits, outputs["policy_logits"]) <= TOLERANCE
        assert outputs["value"].shape == (num_slots,)
        for spec, state in zip(interface.states, policy.agent_state, strict=True):
            states[spec.name] = outputs[f"next_{spec.name}"]
            assert compute_difference(state, states[spec.name]) <= TOLERANCE
        is_first = random.random(num_slots) < 0.3
        policy.observe(random.standard_normal(num_slots).astype(np.float32), is_first)


def draw(leaf: TensorSpec, num_slots: int, random: np.random.Generator) -> np.ndarray:
    shape = (num_slots, *leaf.shape)
    if leaf.dtype == "float64":
        return random.standard_normal(shape)
    return random.integers(0, 2 if leaf.dtype == "bool" else 200, shape).astype(leaf.dtype)


class LookingModel(AgentModel):
    """Looks at the numbers in its tensors, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(2, 3)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        return ()

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        rows = inputs.observations["observation"]
        if rows.sum().item() > 0:
            rows = rows * 2.0
        logits = self.head(rows)
        return ModelOutputs(logits, logits[..., 0], state)


class ForgetfulModel(LookingModel):
    """Gives something else each time: no graph can agree with it."""

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        logits = self.head(inputs.observations["observation"])
        return ModelOutputs(logits + torch.rand_like(logits), logits[..., 0], state)


VECTOR = EnvironmentSpec((TensorSpec("observation", (2,), "float32"),), ActionSpec.discrete(3))


def test_network_that_looks_at_numbers_is_refused_with_the_reason() -> None:
    model = LookingModel()

    with pytest.raises(ConfigError) as caught:
        make_onnx(model, VECTOR, make_interface(model, VECTOR, True))

    assert "LookingModel" in str(caught.value)
    assert "torch.export" in str(caught.value)
    assert "--no-onnx" in str(caught.value)


def test_graph_that_differs_is_refused_with_the_difference() -> None:
    model = ForgetfulModel()

    with pytest.raises(ConfigError, match=r"policy_logits.*after 1 steps.*differ by 0\.\d+"):
        make_onnx(model, VECTOR, make_interface(model, VECTOR, False))


def test_missing_libraries_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LookingModel()
    monkeypatch.setattr("importlib.util.find_spec", lambda unused_name: None)

    with pytest.raises(MissingExtraError, match=r"impala-rl\[onnx\]"):
        make_onnx(model, VECTOR, make_interface(model, VECTOR, False))
