"""The contract of own networks: each rule is checked, and networks that keep it pass.

Each bad network breaks one rule; that it is refused by its own rule's text shows that the
check for it works and that the checks before it let good networks through.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_networks
import pytest
import torch
from bad_networks import (
    BadStateName,
    BatchNorm,
    DetachedValue,
    Doubles,
    Dropout,
    Earlier,
    Forgets,
    Frozen,
    Good,
    Half,
    Infinite,
    InPlace,
    KeepsState,
    Later,
    Lazy,
    LogitsOnly,
    Mode,
    NeverReset,
    NewBuffer,
    NoParameters,
    OtherAct,
    Pair,
    ResetAtTheStart,
    ResetForAll,
    RootOfZero,
    Squeezed,
    TwoStates,
    ValueColumn,
    WideState,
)
from own_networks import ENVIRONMENT, make, make_object
from torch import Tensor, nn

from impala_common.errors import ModelError
from impala_common.models.contract import ModelInputs, make_state_specs
from impala_common.models.validation import validate_model
from impala_common.spec.action_spec import ActionPart, ActionSpec
from impala_common.spec.specs import EnvironmentSpec, TensorSpec


class Raises(own_networks.Plain):
    """Stands here because its error is to name this file."""

    def features(self, inputs: ModelInputs) -> Tensor:
        return self.body(inputs.observations["observation"][..., :4])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (own_networks.Wide, r"expected \[2, 3, 4\], got \[2, 3, 5\] \(\[T, B, P\]\)"),
        (Doubles, "policy_logits: expected float32, got float64"),
        (Pair, "forward: expected ModelOutputs, got tuple"),
        (Squeezed, r"values: expected \[2, 1\], got \[2\]"),
        (ValueColumn, r"values: expected \[2, 3\], got \[2, 3, 1\]"),
        (Infinite, "policy_logits: expected finite numbers, got -?(inf|nan)"),
        (RootOfZero, "policy_logits: expected finite gradients"),
        (DetachedValue, "values: no gradient reaches any parameter"),
        (InPlace, "must not change its inputs in place"),
        (NewBuffer, "network.mean: forward must not exchange"),
        (Raises, r"forward raised RuntimeError: mat1 .*\(test_own_models.py:\d+\).*\[2, 3, 5\]"),
        (NoParameters, "has no parameter"),
        (Frozen, "no parameter of the network has requires_grad"),
        (Lazy, "lazy layers have no sizes yet"),
        (Half, "network.table: bfloat16 cannot be sent"),
        (Dropout, "two calls with equal inputs must give equal outputs"),
        (Mode, r"train\(\) and eval\(\) must not differ"),
        (BatchNorm, "a column must not depend on the other columns"),
        (Later, "row t must not depend on later rows"),
        (Earlier, "act row by row, carrying the state, must equal forward"),
        (NeverReset, "the state must be set to 0 before a row where is_first"),
        (ResetAtTheStart, "the state must be set to 0 before a row where is_first"),
        (ResetForAll, "a column must not depend on the other columns"),
        (Forgets, "the state must be set to 0"),
        (KeepsState, "two calls with equal inputs must give equal outputs"),
        (WideState, "forward raised RuntimeError: .*hidden"),
        (TwoStates, "state: expected a tuple of 1 tensors, got 2"),
        (BadStateName, r"agent_state_specs\(\)\[0\]: expected TensorSpec\('initial_agent_state/0'"),
        (OtherAct, "act row by row, carrying the state, must equal forward"),
        (LogitsOnly, r"act: expected \(policy_logits, state\)"),
        (lambda unused_spec, unused_environment: 3, "expected a torch.nn.Module, got 3"),
    ],
)  # fmt: skip
def test_make_of_a_network_that_breaks_the_contract_names_the_rule(
    network: Callable[..., Any], message: str
) -> None:
    assert make_object(Good)

    with pytest.raises(ModelError, match=message):
        make_object(network)


def test_make_of_an_encoder_with_another_width_names_both() -> None:
    class Wrong(own_networks.Features):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.num_features += 1

    with pytest.raises(ModelError, match=r"encoder: expected \[6, 513\], got \[6, 512\]"):
        make_object(Wrong)


ACTIONS = {
    "discrete": ActionSpec.discrete(3),
    "mixed": ActionSpec(
        (
            ActionPart("action/0", "categorical", (2,), "int64", sizes=(2, 3), starts=(0, 0)),
            ActionPart("action/1", "gaussian", (2,), "float32", lows=(-1.0,) * 2, highs=(1.0,) * 2),
            ActionPart("action/2", "bernoulli", (2,), "int8"),
        )
    ),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("recurrence", ["none", "lstm", "gru"])
@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("mlp", (3,), "float64"),
        ("minatar_cnn", (10, 10, 4), "bool"),
        ("nature_cnn", (4, 36, 36), "uint8"),
        ("impala_resnet", (3, 16, 16), "uint8"),
    ],
)
def test_shipped_networks_keep_the_contract(
    name: str, shape: tuple[int, ...], dtype: str, recurrence: str, action: ActionSpec
) -> None:
    environment = EnvironmentSpec((TensorSpec("observation", shape, dtype),), action)
    for has_feedback in (False, True):
        model = make(
            name,
            environment,
            recurrence=recurrence,
            feature_dim=8,
            hidden_dim=8,
            use_previous_action_and_reward=has_feedback,
        )

        validate_model(model, environment)


def test_networks_of_the_documentation_keep_the_contract() -> None:
    """A network and its memory in docs/models.md, an encoder in docs/start/own_network.md."""
    docs = Path(__file__).parents[3] / "docs"
    blocks = re.compile(r"```python\n(.*?)```", re.DOTALL)
    network, memory = blocks.findall((docs / "models.md").read_text())
    encoder = blocks.findall((docs / "start" / "own_network.md").read_text())[0]
    names: dict[str, Any] = {"make_state_specs": make_state_specs}
    for block in (network, encoder, memory):
        exec(block, names)

    class Remembering(names["Net"]):  # type: ignore[misc]
        agent_state_specs, forward = names["agent_state_specs"], names["forward"]

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.cell = nn.GRUCell(64, 128)
            self.policy, self.value = nn.Linear(128, 4), nn.Linear(128, 1)

    for network_class in (names["Net"], names["Small"], Remembering):
        assert make_object(network_class)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_validate_on_a_gpu_finds_tensors_that_stay_on_the_cpu() -> None:
    class Stays(own_networks.Plain):
        def features(self, inputs: ModelInputs) -> Tensor:
            return super().features(inputs) + torch.ones(16)

    for name in ("own_networks:Remembering", "mlp"):
        validate_model(make(name, recurrence="lstm", hidden_dim=8).cuda(), ENVIRONMENT)
    with pytest.raises(ModelError, match=r"forward raised RuntimeError: .* same device"):
        validate_model(make_object(Stays).cuda(), ENVIRONMENT)


def test_validate_leaves_the_network_as_it_was() -> None:
    """Planted: modes not put back; buffers not put back."""

    class Counting(own_networks.Plain):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.register_buffer("calls", torch.zeros(()))
            self.body.eval()

        def features(self, inputs: ModelInputs) -> Tensor:
            self.calls.add_(1.0)
            return super().features(inputs)

    model = make_object(Counting)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    validate_model(model, ENVIRONMENT)

    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert model.training
    assert not model.network.body.training
    assert all(parameter.grad is None for parameter in model.parameters())
