"""The conformance kit against learners: the product's, another one, and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running_server import RunningServer, make_config
from small_learner import SmallLearner

from impala_conformance import cli
from impala_conformance.connection import Connection
from impala_conformance.environment import make_default_environment
from impala_conformance.kit import LEARNER_RULES, find_rules, play_learner
from impala_conformance.rule import Result
from impala_rl.v1 import spec_pb2, tensor_pb2

pytestmark = pytest.mark.timeout(120)


def write_token(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text("a" * 64 + "\n")
    path.chmod(0o600)
    return str(path)


def make_stacked_environment() -> spec_pb2.EnvironmentSpec:
    """Frames [4, 8, 8] and an action of a choice and a number: unique frames, mixed actions."""
    environment = make_default_environment()
    leaf = environment.observation_leaves[0]
    leaf.dtype, leaf.role = tensor_pb2.DTYPE_UINT8, tensor_pb2.TENSOR_ROLE_IMAGE_CHW
    leaf.shape[:] = [4, 8, 8]
    environment.frame_stack = 4
    environment.action.parts[0].tensor.name = "action/0"
    number = environment.action.parts.add()
    number.tensor.name, number.tensor.dtype = "action/1", tensor_pb2.DTYPE_FLOAT32
    number.tensor.shape.append(2)
    number.kind = spec_pb2.ACTION_KIND_GAUSSIAN
    number.lows.extend([-1.0, 0.0])
    number.highs.extend([1.0, 3.0])
    return environment


def outcomes(results: list[Result]) -> str:
    return str({one.rule: (one.outcome, one.text) for one in results if one.outcome != "passed"})


@pytest.mark.parametrize("is_stacked", [False, True])
def test_learner_passes(tmp_path: Path, is_stacked: bool) -> None:
    token = write_token(tmp_path)
    config = make_config(security={"actor_token_file": token}, model={"model": "auto"})
    with RunningServer(tmp_path / "run", config) as server:
        results = play_learner(
            Connection(address=server.address, token_file=token),
            make_stacked_environment() if is_stacked else make_default_environment(),
            find_rules("learner"),
            stop=server.stop,
        )

    assert {result.outcome for result in results} == {"passed"}, outcomes(results)


def test_another_implementation_passes(tmp_path: Path) -> None:
    with SmallLearner(token="a" * 64) as server:
        results = play_learner(
            Connection(address=server.address, token_file=write_token(tmp_path)),
            make_default_environment(),
            find_rules("learner"),
            stop=server.stop,
        )

    assert {result.outcome for result in results} == {"passed"}, outcomes(results)


@pytest.mark.parametrize("rule", [rule.name for rule in LEARNER_RULES])
def test_planted_violation_is_found_by_name(rule: str, tmp_path: Path) -> None:
    """A learner with one fault fails the rule that is about it."""
    token = write_token(tmp_path) if rule == "token" else ""
    with SmallLearner(rule) as server:
        results = play_learner(
            Connection(address=server.address, token_file=token),
            make_default_environment(),
            find_rules("learner", rule),
            patience_s=1.5,
            stop=server.stop,
        )

    assert [result.outcome for result in results] == ["failed"], outcomes(results)


def test_command_reports_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with SmallLearner("sessions") as server:
        command = ["--learner", server.address, "--disposable", "--json"]
        assert cli.run([*command, "--rules", "register,sessions"]) == 1

    report = json.loads(capsys.readouterr().out)
    assert (report["side"], report["passed"], report["failed"]) == ("learner", 1, 1)
    (failed,) = [rule for rule in report["rules"] if rule["outcome"] == "failed"]
    assert failed["rule"] == "sessions"
    assert "a seed each" in failed["text"]
