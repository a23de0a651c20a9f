"""Names of own networks: look-up, and that a run and its actors use the same one."""

from __future__ import annotations

import sys
from pathlib import Path

import own_networks
import pytest
import torch
from own_networks import make

from impala_common.config.checks import is_own_model
from impala_common.errors import ConfigError, ModelError, SpecMismatchError
from impala_common.models.contract import make_state_specs
from impala_common.models.own_model import ForwardModel
from impala_common.models.registry import register_model
from impala_common.models.trunk import TrunkModel
from impala_common.spec.specs import TensorSpec, validate_same_model, validate_same_weights


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
