"""examples/own_model.py with its documented commands, and actors on machines without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from running_server import RunningServer, make_config

from impala_common.config.toml_io import load_config
from impala_common.process.exit_codes import CONFIG, OK
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = "own_model:ResidualMlp"
TRAIN = ["--env", "CartPole-v1", "--port", "0", "--num-actors", "1", "--json"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A learner that trains the example's network, for actors that are refused."""
    sys.path.append(str(EXAMPLES))
    try:
        config = make_config(model={"model": MODEL})
        with RunningServer(tmp_path_factory.mktemp("server"), config) as running:
            yield running
    finally:
        sys.path.remove(str(EXAMPLES))


def test_example_is_trained_and_judged_by_the_command_in_its_text(tmp_path: Path) -> None:
    """The working directory holds the class; actors and the evaluation find it there, too.

    8,000 steps give returns of 60 to 200 where untrained weights give 22.
    """
    (tmp_path / "own_model.py").write_text((EXAMPLES / "own_model.py").read_text())
    options = ["--model", MODEL, "--total-steps", "8000", "--eval-episodes", "8"]
    with Command(tmp_path, "impala-train", *TRAIN, *options, "--run-dir", "run") as train:
        assert train.wait() == OK, train.err
        result = train.result()

    assert result["steps"] >= 8000
    assert result["evaluation"]["return_mean"] > 35
    assert load_config(RunDirectory(tmp_path / "run").config_path).model.model == MODEL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], f"expected {MODEL}, which the run trains, got started with no --model: add"),
        (["--model", MODEL], "model own_model:ResidualMlp cannot be imported: ModuleNotFoundError"),
        (["--model", "own_model"], "--model is 'own_model' but must be module:Class"),
    ],
)
def test_actor_without_the_class_says_what_is_missing(
    tmp_path: Path, server: RunningServer, options: list[str], message: str
) -> None:
    command = ["--server", server.address, "--env", "CartPole-v1", "--actor-id", "far", *options]
    with Command(tmp_path, "impala-actor", *command) as actor:
        assert actor.wait() == CONFIG
        assert message in actor.err.splitlines()[-1], actor.err
        assert "Traceback" not in actor.err


def test_train_with_a_class_that_cannot_be_trained_ends_with_its_shapes(tmp_path: Path) -> None:
    source = (EXAMPLES / "own_model.py").read_text()
    wrong = source.replace("self.value_head(features).squeeze(-1)", "self.value_head(features)")
    assert wrong != source
    (tmp_path / "own_model.py").write_text(wrong)
    with Command(tmp_path, "impala-train", *TRAIN, "--model", MODEL) as train:
        assert train.wait() == CONFIG
        last = train.err.splitlines()[-1]
        assert f"model {MODEL}: values: expected [2, 3], got [2, 3, 1]" in last
        assert "Traceback" not in train.err
