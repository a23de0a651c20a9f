"""Networks of one's own: how they are found, and that each rule of the contract is checked.

Each bad network breaks one rule; that it is refused by its own rule's text shows that the
check for it works and that the checks before it let good networks through.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_networks
import pytest
import torch
from torch import Tensor, nn

from impala_common.action_spec import ActionPart, ActionSpec
from impala_common.config.checks import is_own_model
from impala_common.config.sections import ModelConfig
from impala_common.errors import ConfigError, ModelError, SpecMismatchError
from impala_common.models.contract import AgentModel, ModelInputs, ModelOutputs, make_state_specs
from impala_common.models.own_model import ForwardModel
from impala_common.models.registry import make_model, register_model, resolve_model_spec
from impala_common.models.trunk import Encoder, TrunkModel
from impala_common.models.validation import validate_model
from impala_common.specs import (
    EnvironmentSpec,
    TensorSpec,
    validate_same_model,
    validate_same_weights,
)

ENVIRONMENT = EnvironmentSpec((TensorSpec("observation", (5,), "float32"),), ActionSpec.discrete(4))


def make(name: str, environment: EnvironmentSpec = ENVIRONMENT, **config: Any) -> AgentModel:
    return make_model(
        resolve_model_spec(ModelConfig(model=name, **config), environment), environment, 1
    )


def make_object(
    maker: Callable[..., Any], environment: EnvironmentSpec = ENVIRONMENT
) -> AgentModel:
    """Returns what a maker that the class handed over makes."""
    register_model("object:net", maker)
    return make("object:net", environment)


def test_make_by_name_takes_agent_models_plain_modules_and_encoders() -> None:
    assert isinstance(make("own_networks:Remembering"), own_networks.Remembering)
    assert isinstance(make("own_networks:Plain"), ForwardModel)
    encoded = make("own_networks:Features", feature_dim=6, recurrence="gru", hidden_dim=7)
    assert isinstance(encoded, TrunkModel)
    assert isinstance(encoded.encoder, own_networks.Features)
    assert encoded.agent_state_specs() == make_state_specs((1, 7))
    normalised = make("own_networks:Plain", normalise_observations=True)
    assert any(name.endswith(".count") for name in normalised.state_dict())


def test_make_twice_with_one_seed_gives_the_same_weights_and_leaves_the_random_stream() -> None:
    before = torch.get_rng_state()

    first, second = make("own_networks:Remembering"), make("own_networks:Remembering")

    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert all(parameter.grad is None for parameter in first.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_nets:Net", "cannot be imported: .*No module named 'no_such_nets'.*PYTHONPATH"),
        ("own_networks:Nope", "own_networks was imported, but Nope is nowhere in it"),
        ("own_networks:no_class", "no_class is no torch.nn.Module"),
        ("own_networks:make_state_specs", "make_state_specs is no torch.nn.Module"),
        (
            "own_networks:Unmakeable",
            r"cannot be made .*KeyError: 'a table .*\(own_networks.py:\d+\)",
        ),
        ("object:elsewhere", "was not handed to this process"),
    ],
)
def test_make_of_what_is_no_network_names_it(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        make(name)

    assert str(caught.value).startswith(f"model {name} ")


def test_import_finds_modules_of_the_working_directory_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the working directory first; json.py was taken for the standard library's."""
    source = "from own_networks import Plain as Net\n"
    (tmp_path / "nets_of_this_folder.py").write_text(source)
    (tmp_path / "broken_nets.py").write_text("import json\n1 / 0\n")
    (tmp_path / "tomllib.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = list(sys.path)

    assert isinstance(make("nets_of_this_folder:Net"), ForwardModel)
    with pytest.raises(ModelError, match=r"ZeroDivisionError: .*\(broken_nets.py:2\)"):
        make("broken_nets:Net")
    monkeypatch.delitem(sys.modules, "tomllib", raising=False)
    with pytest.raises(ModelError, match="Net is nowhere in it"):
        make("tomllib:Net")

    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        ("my_nets:Net", True),
        ("package.my_nets:Outer.Net", True),
        ("object:it", True),
        ("my_nets", False),
        ("my nets:Net", False),
        ("my_nets:", False),
        ("/tmp/my_nets:Net", False),
        ("..my_nets:Net", False),
    ],
)
def test_own_model_name_is_a_module_and_a_class(name: str, is_good: bool) -> None:
    assert is_own_model(name) == is_good


def test_register_of_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="object:Name"):
        register_model("my_nets:Net", own_networks.Plain)


class Good(own_networks.Remembering):
    """Keeps the contract; the bad ones below each break one rule of it."""


class Dropout(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return nn.functional.dropout(super().features(inputs), 0.5, self.training)


class Mode(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return super().features(inputs) * (1.0 if self.training else 1.1)


class BatchNorm(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        features = super().features(inputs)
        return features - features.mean(dim=1, keepdim=True)


class Later(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        features = super().features(inputs)
        return features + torch.cat((features[1:], features[-1:]))


class Earlier(own_networks.Plain):
    """Sees the row before, of which actors, who have one row, know nothing."""

    def features(self, inputs: ModelInputs) -> Tensor:
        features = super().features(inputs)
        return features + torch.cat((features[:1], features[:-1]))


class Doubles(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        return ModelOutputs(
            *(x.double() if isinstance(x, Tensor) else x for x in super().forward(inputs, state))
        )


class Pair(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        return super().forward(inputs, state)[:2]


class Squeezed(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        outputs = super().forward(inputs, state)
        return outputs._replace(values=outputs.values.squeeze())


class ValueColumn(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        outputs = super().forward(inputs, state)
        return outputs._replace(values=outputs.values.unsqueeze(-1))


class Infinite(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return super().features(inputs) / 0.0


class RootOfZero(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return super().features(inputs) + (super().features(inputs) * 0.0).sqrt()


class DetachedValue(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        outputs = super().forward(inputs, state)
        return outputs._replace(values=outputs.values.detach())


class InPlace(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        inputs.observations["observation"].mul_(0.5)
        return super().features(inputs)


class NewBuffer(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("mean", torch.zeros(()))

    def features(self, inputs: ModelInputs) -> Tensor:
        self.mean = self.mean.clone()
        return super().features(inputs)


class Raises(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return self.body(inputs.observations["observation"][..., :4])


class NoParameters(nn.Module):
    def __init__(self, *unused_arguments: Any) -> None:
        super().__init__()


class Frozen(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requires_grad_(False)


class Lazy(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.body = nn.LazyLinear(16)


class Half(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("table", torch.zeros(3, dtype=torch.bfloat16))


class NeverReset(own_networks.Remembering):
    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        return super().forward(inputs._replace(is_first=torch.zeros_like(inputs.is_first)), state)


class ResetAtTheStart(own_networks.Remembering):
    """Knows only the first row's resets: what a loop over whole unrolls forgets."""

    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        is_first = inputs.is_first.clone()
        is_first[1:] = False
        return super().forward(inputs._replace(is_first=is_first), state)


class ResetForAll(own_networks.Remembering):
    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        is_first = inputs.is_first.any(dim=1, keepdim=True).expand_as(inputs.is_first)
        return super().forward(inputs._replace(is_first=is_first), state)


class Forgets(own_networks.Remembering):
    """Hands back the state it was given."""

    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        return super().forward(inputs, state)._replace(state=state)


class KeepsState(own_networks.Remembering):
    memory: Any = None

    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        outputs = super().forward(inputs, self.memory or state)
        if inputs.is_first.shape[1] == 3:
            self.memory = tuple(tensor.detach().clone() for tensor in outputs.state)
        return outputs


class WideState(own_networks.Remembering):
    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        return make_state_specs((1, 9))


class TwoStates(own_networks.Remembering):
    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        outputs = super().forward(inputs, state)
        return outputs._replace(state=outputs.state * 2)


class BadStateName(own_networks.Remembering):
    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("hidden", (1, 8), "float32"),)


class OtherAct(own_networks.Remembering):
    def act(self, inputs: ModelInputs, state: Any) -> Any:
        logits, state = super().act(inputs, state)
        return logits + 1.0, state


class LogitsOnly(own_networks.Remembering):
    def act(self, inputs: ModelInputs, state: Any) -> Any:
        return super().act(inputs, state)[0]


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
    """Blocks of docs/models.md: a network, an encoder, and what makes the network remember."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    network, encoder, memory = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"Encoder": Encoder, "make_state_specs": make_state_specs}
    for block in (network, encoder, memory):
        exec(block, names)

    class Remembering(names["Net"]):  # type: ignore[misc]
        agent_state_specs, forward = names["agent_state_specs"], names["forward"]

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.cell = nn.GRUCell(64, 128)
            self.policy, self.value = nn.Linear(128, 4), nn.Linear(128, 1)

    for network_class in (names["Net"], names["Encoded"], Remembering):
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


@pytest.mark.parametrize(
    ("run", "actor", "message"),
    [
        ("mlp", "", None),
        ("auto", "", None),
        ("a:Net", "a:Net", None),
        ("a:Net", "", "expected a:Net, .* got started with no --model: add --model a:Net"),
        ("a:Net", "b:Net", "got started with --model b:Net: start it with --model a:Net"),
        ("mlp", "b:Net", "expected mlp, .* got started with --model b:Net: start it without"),
    ],
)  # fmt: skip
def test_validate_same_model_says_what_to_type(run: str, actor: str, message: str | None) -> None:
    if message is None:
        validate_same_model(run, actor)
        return
    with pytest.raises(SpecMismatchError, match=f"model: .*{message}"):
        validate_same_model(run, actor)


def test_validate_same_weights_names_the_first_difference() -> None:
    one, two = TensorSpec("a", (2,), "float32"), TensorSpec("b", (3, 4), "float32")
    wide, other = TensorSpec("b", (3, 5), "float32"), TensorSpec("b", (3, 4), "float64")
    cases = [
        ((one, two), (one, wide), r"weights of x:Net, b: expected float32 \[3, 4\].*\[3, 5\]"),
        ((one, two), (one, other), r"b: expected float32 \[3, 4\] .*got float64 \[3, 4\]"),
        ((one, two), (one,), "b: .*got no such tensor: both sides"),
        ((one,), (one, two), r"b: expected no such tensor.*got float32 \[3, 4\]"),
        ((one, two), (two, one), "order"),
    ]
    validate_same_weights("x:Net", (one, two), (one, two))

    for expected, actual, message in cases:
        with pytest.raises(SpecMismatchError, match=message):
            validate_same_weights("x:Net", expected, actual)
