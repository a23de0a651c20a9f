"""Every inference backend computes what the network does, and the choice between them is safe."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from impala_common.config import ModelConfig
from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.inference import selection
from impala_common.policy.inference.backend import (
    Array,
    InferenceBackend,
    StepInputs,
    UnsuitableModelError,
)
from impala_common.policy.inference.bfloat16 import Bfloat16Inference
from impala_common.policy.inference.eager import EagerInference
from impala_common.policy.inference.numpy_mlp import NumpyMlpInference
from impala_common.policy.inference.onnx_runtime import OnnxRuntimeInference
from impala_common.policy.inference.selection import (
    ProbedBackend,
    compute_difference,
    make_inference,
)
from impala_common.policy.policy import Policy
from impala_common.spec.action_spec import ActionPart, ActionSpec
from impala_common.spec.specs import OBSERVATION, EnvironmentSpec, TensorSpec

torch.set_num_threads(1)

N = 5
OFFSET = 1e6
"""Of leaves of float64, which float32 has no fractions for."""
CHOICE = ActionSpec.discrete(3)
VECTOR = EnvironmentSpec((TensorSpec(OBSERVATION, (4,), "float32"),), CHOICE)
PARTS = EnvironmentSpec(
    (
        TensorSpec("observation/a", (3,), "float64"),
        TensorSpec("observation/b", (2, 2), "uint8"),
        TensorSpec("observation/c", (), "float32"),
        TensorSpec("observation/d", (2,), "int64"),
    ),
    ActionSpec(
        (
            ActionPart("action/a", "gaussian", (2,), "float32", lows=(-1.0,) * 2, highs=(1.0,) * 2),
            ActionPart("action/b", "categorical", sizes=(3,), starts=(0,)),
        )
    ),
)
ATARI = EnvironmentSpec((TensorSpec(OBSERVATION, (4, 84, 84), "uint8"),), CHOICE, frame_stack=4)
SMALL_IMAGE = EnvironmentSpec((TensorSpec(OBSERVATION, (10, 10, 4), "bool"),), CHOICE)

MLP = ModelConfig(hidden_sizes=(16, 8))
CASES: dict[str, tuple[EnvironmentSpec, ModelConfig]] = {
    "mlp": (VECTOR, MLP),
    "mlp-relu-scaled": (VECTOR, ModelConfig(activation="relu", observation_scale=0.5)),
    "mlp-without-hidden-layers": (VECTOR, ModelConfig(hidden_sizes=())),
    "mlp-parts-normalised": (
        PARTS,
        ModelConfig(model="mlp", normalise_observations=True, observation_clip=1.5),
    ),
    "atari": (ATARI, ModelConfig(feature_dim=64)),
    "atari-lstm": (
        ATARI,
        ModelConfig(
            feature_dim=32, hidden_dim=16, recurrence="lstm", use_previous_action_and_reward=True
        ),
    ),
    "minatar-hidden": (SMALL_IMAGE, ModelConfig(feature_dim=32, hidden_dim=16)),
    "resnet": (SMALL_IMAGE, ModelConfig(model="impala_resnet", feature_dim=32)),
    "lstm-normalised": (
        VECTOR,
        ModelConfig(
            recurrence="lstm",
            hidden_sizes=(16,),
            hidden_dim=8,
            normalise_observations=True,
            use_previous_action_and_reward=True,
        ),
    ),
    "gru": (VECTOR, ModelConfig(recurrence="gru", hidden_sizes=(16,), hidden_dim=8)),
}


def make_case(name: str) -> tuple[AgentModel, EnvironmentSpec]:
    environment, config = CASES[name]
    model = make_model(resolve_model_spec(config, environment), environment, seed=1)
    return model, environment


def make_weights(model: AgentModel, seed: int) -> dict[str, Array]:
    """Weights as if trained: heads that say something, biases and statistics that are not 0."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy().copy()
        if "policy_head" in name:
            array = array * 50.0
        if "log_std" in name:
            array = np.linspace(-6.0, 3.0, array.size, dtype=array.dtype)  # beyond both limits
        if name == "observation_moments.0.mean" and array.dtype == np.float64 and array.size == 3:
            array = array + OFFSET
        weights[name] = np.asarray(array + 0.05 * random.random(array.shape), array.dtype)
    return weights


def make_steps(environment: EnvironmentSpec, num_steps: int) -> list[StepInputs]:
    steps = [selection.draw_inputs(environment, N, seed) for seed in range(10, 10 + num_steps)]
    for step in steps:
        for leaf in step.observations.values():
            if leaf.dtype == np.float64:
                leaf += OFFSET
    return steps


def compute_wanted(
    model: AgentModel, weights: Mapping[str, Array], steps: list[StepInputs]
) -> tuple[list[Array], tuple[Array, ...]]:
    """Returns logits of each step and the last state, by the network's forward over all rows."""
    model = copy.deepcopy(model)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    inputs = ModelInputs(
        {
            name: torch.tensor(np.stack([step.observations[name] for step in steps]))
            for name in steps[0].observations
        },
        *(torch.tensor(np.stack([step[field] for step in steps])) for field in (1, 2, 3)),
    )
    with torch.no_grad():
        outputs = model(inputs, model.initial_state(N))
    return list(outputs.policy_logits.numpy()), tuple(state.numpy() for state in outputs.state)


def assert_equal(
    backend: InferenceBackend, model: AgentModel, environment: EnvironmentSpec
) -> None:
    """Two versions of weights, state carried and reset between: all logits and the last state."""
    steps = make_steps(environment, 4)
    for seed in (1, 2):
        weights = make_weights(model, seed)
        backend.load(weights)
        backend.reset()
        wanted, state = compute_wanted(model, weights, steps)
        tolerance = max(backend.tolerance, 1e-5)
        for step, logits in zip(steps, wanted, strict=True):
            got = backend.infer(step)
            assert compute_difference(logits, got) <= tolerance
        for have, want in zip(backend.agent_state, state, strict=True):
            assert compute_difference(want, have) <= tolerance


@pytest.mark.parametrize("name", CASES)
def test_eager_in_steps_equals_forward_over_rows(name: str) -> None:
    """Planted: `reset` that does nothing; `load` that keeps the first weights."""
    model, environment = make_case(name)

    assert_equal(EagerInference(copy.deepcopy(model), N), model, environment)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("mlp")])
def test_numpy_network_equals_forward(name: str) -> None:
    """Planted: log_std not clamped; scale left out; statistics of the first weights kept; logits
    of parts not put in order; leaves of float64 shifted in float32 (at an offset of 1e6)."""
    model, environment = make_case(name)

    assert_equal(NumpyMlpInference(model, N), model, environment)


@pytest.mark.parametrize(
    "name", ["atari", "atari-lstm", "minatar-hidden", "resnet", "gru", "lstm-normalised"]
)
def test_bfloat16_network_is_near_forward(name: str) -> None:
    """Planted: the memory's input left in bfloat16."""
    model, environment = make_case(name)

    assert_equal(Bfloat16Inference(model, N), model, environment)


@pytest.mark.slow
def test_onnxruntime_graph_equals_forward_with_any_weights() -> None:
    """Planted: the graph made from weights of which some are alike; made with constants folded."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, environment = make_case("lstm-normalised")

    assert_equal(OnnxRuntimeInference(model, environment, N, 1), model, environment)


def test_numpy_logits_are_the_callers() -> None:
    """Planted: the head's product written into a buffer that the next step uses again."""
    model, environment = make_case("mlp")
    first, second = make_steps(environment, 2)
    backend = NumpyMlpInference(model, N)

    logits = backend.infer(first)
    kept = logits.copy()
    backend.infer(second)

    np.testing.assert_array_equal(logits, kept)


@pytest.mark.parametrize(
    ("maker", "name"), [(NumpyMlpInference, "gru"), (Bfloat16Inference, "mlp")]
)
def test_backend_of_another_network_says_so(maker: Any, name: str) -> None:
    model, _environment = make_case(name)

    with pytest.raises(UnsuitableModelError):
        maker(model, N)


class FakeInference(InferenceBackend):
    """Returns logits that no network here would."""

    name: ClassVar[str] = "numpy"
    tolerance: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self.logits = np.array([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0]], np.float32)

    def load(self, weights: Mapping[str, Array]) -> None:
        pass

    def infer(self, inputs: StepInputs) -> Array:
        return self.logits


def test_policy_reports_the_logits_that_it_drew_from() -> None:
    """Planted: the logits of an eager call reported beside another backend's actions."""
    model, environment = make_case("mlp")
    inference = FakeInference()
    policy = Policy(model, environment.action, 2, seed=0, inference=inference)

    step = policy.act({OBSERVATION: np.zeros((2, 4), np.float32)}, np.ones(2, np.bool_), True)

    assert step.logits is inference.logits
    assert step.actions.tolist() == [1, 0]


def fake_probe(costs: dict[str, tuple[float, float]]) -> Any:
    def probe(
        backends: list[InferenceBackend], weights: Mapping[str, Array], inputs: StepInputs
    ) -> list[ProbedBackend]:
        return [ProbedBackend(backend, *costs[backend.name]) for backend in backends]

    return probe


@pytest.mark.parametrize(
    ("numpy_cost", "unroll_length", "chosen"),
    [
        ((0.5, 0.0), 20, "numpy"),
        ((0.95, 0.0), 20, "eager"),  # not worth it
        ((0.5, 20.0), 20, "eager"),  # new weights cost more than steps save
        ((0.5, 20.0), 200, "numpy"),
    ],
)
def test_auto_takes_the_cheapest_with_weights_counted(
    monkeypatch: pytest.MonkeyPatch,
    numpy_cost: tuple[float, float],
    unroll_length: int,
    chosen: str,
) -> None:
    """Planted: load_ms left out of the cost."""
    costs = {"eager": (1.0, 0.0), "numpy": numpy_cost}
    monkeypatch.setattr(selection, "probe", fake_probe(costs))
    model, environment = make_case("mlp")

    assert make_inference("auto", model, environment, N, unroll_length).name == chosen


def test_auto_leaves_weights_and_state_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    """Planted: the changed weights of the comparison left in the network, or in the backend."""
    caplog.set_level(logging.INFO)
    cases = ("mlp", "auto"), ("atari-lstm", "auto"), ("mlp", "numpy"), ("atari-lstm", "bfloat16")
    for name, choice in cases:
        model, environment = make_case(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        steps = make_steps(environment, 3)
        weights = {key: value.numpy() for key, value in before.items()}
        wanted, _state = compute_wanted(model, weights, steps)

        backend = make_inference(choice, model, environment, N, 20)  # type: ignore[arg-type]

        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key])
        for step, logits in zip(steps, wanted, strict=True):
            assert compute_difference(logits, backend.infer(step)) <= max(backend.tolerance, 1e-5)
    assert "inference: " in caplog.text
    assert "eager" in caplog.text


def test_auto_drops_a_backend_whose_numbers_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: candidates measured without a comparison."""
    right = NumpyMlpInference.infer
    monkeypatch.setattr(NumpyMlpInference, "infer", lambda self, step: right(self, step) + 0.01)
    model, environment = make_case("mlp")

    assert make_inference("auto", model, environment, N, 20).name == "eager"


def test_named_backend_that_does_not_fit_becomes_eager_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, environment = make_case("gru")

    backend = make_inference("numpy", model, environment, N, 20)

    assert backend.name == "eager"
    assert "numpy cannot be used here: the network is no MLP without memory" in caplog.text


class OwnModel(AgentModel):
    """A network of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        return ()

    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        raise AssertionError("a network of one's own is not called to choose a backend")


def test_own_network_is_eager_and_not_called() -> None:
    assert make_inference("auto", OwnModel(), VECTOR, N, 20).name == "eager"
