"""The conformance kit against policy servers: the product's, another one, and wrong ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_policy_server import RunningPolicyServer
from running_server import RunningServer
from small_policy_server import SmallPolicyServer

from impala_conformance import cli
from impala_conformance.connection import Connection
from impala_conformance.environment import make_default_environment
from impala_conformance.kit import POLICY_RULES, find_rules, play_policy_server
from impala_conformance.rule import Result
from impala_rl.v1 import spec_pb2, tensor_pb2

pytestmark = pytest.mark.timeout(120)

SIDE = "policy server"


def make_masked_environment() -> spec_pb2.EnvironmentSpec:
    environment = make_default_environment()
    environment.action.parts[0].sizes[:] = [5]
    environment.action.parts[0].starts[:] = [3]
    mask = environment.observation_leaves.add()
    mask.name, mask.dtype = "observation/action_mask", tensor_pb2.DTYPE_BOOL
    mask.role = tensor_pb2.TENSOR_ROLE_ACTION_MASK
    mask.shape.append(5)
    environment.observation_leaves[0].name = "observation/numbers"
    environment.observation_leaves.sort(key=lambda leaf: leaf.name)
    return environment


def outcomes(results: list[Result]) -> dict[str, str]:
    return {result.rule: f"{result.outcome} {result.text}".strip() for result in results}


def assert_only_skipped(results: list[Result], skipped: set[str]) -> None:
    found = outcomes(results)
    assert {name for name, text in found.items() if text != "passed"} == skipped, str(found)


@pytest.fixture
def token(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "token"
    path.write_text("a" * 64 + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("is_masked", [False, True])
def test_policy_server_passes(tmp_path: Path, token: Path, is_masked: bool) -> None:
    """Trained slots, every rule: with a token, with and without a mask."""
    environment = make_masked_environment() if is_masked else make_default_environment()
    with (
        RunningServer(tmp_path / "run") as server,
        RunningPolicyServer(
            server.address, slot_timeout_s=1.0, security={"actor_token_file": str(token)}
        ) as policy,
    ):
        results = play_policy_server(
            Connection(address=policy.address, token_file=str(token)),
            environment,
            find_rules(SIDE),
            is_disposable=True,
            stop=lambda: policy.bound.request_end("the test ends it"),
        )

    assert_only_skipped(results, set() if is_masked else {"message-bools", "action-mask"})


def test_another_implementation_passes_without_harm(token: Path) -> None:
    """Evaluation slots only, as with a server that is in use."""
    with SmallPolicyServer(token="a" * 64) as server:
        results = play_policy_server(
            Connection(address=server.address, token_file=str(token)),
            make_masked_environment(),
            find_rules(SIDE),
            stop=server.stop,
        )

    assert_only_skipped(results, {"capacity"})


def list_rules() -> list[Any]:
    """Returns the names of all rules; two of three are for make test-extended: each takes 1.5 s."""
    extended = pytest.mark.extended
    return [
        pytest.param(rule.name, marks=[extended] if place % 3 else [])
        for place, rule in enumerate(POLICY_RULES)
    ]


@pytest.mark.parametrize("rule", list_rules())
def test_planted_violation_is_found_by_name(rule: str, token: Path) -> None:
    """A server with one fault fails the rule that is about it."""
    with SmallPolicyServer(rule) as server:
        results = play_policy_server(
            Connection(address=server.address, token_file=str(token) if rule == "token" else ""),
            make_masked_environment(),
            find_rules(SIDE, rule),
            patience_s=1.5,
            is_disposable=True,
            stop=server.stop,
        )

    assert [result.outcome for result in results] == ["failed"], str(outcomes(results))


def test_command_prints_a_table_and_fails_on_a_violation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from google.protobuf import json_format

    path = tmp_path / "environment.json"
    path.write_text(json_format.MessageToJson(make_masked_environment()))
    with SmallPolicyServer("gap") as server:
        command = ["--policy-server", server.address, "--rules", "welcome, gap"]
        assert cli.run([*command, "--environment", str(path)]) == 1
        table = capsys.readouterr().out
        assert cli.run([*command, "--environment", str(path), "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert cli.run([*command[:2], "--rules", "welcome"]) == 78
        refused = capsys.readouterr().err
        assert cli.run([*command[:2], "--rules", "unheard-of"]) == 78

    assert "1 passed, 1 failed, 0 skipped" in table
    assert (report["passed"], report["failed"]) == (1, 1)
    assert [rule["rule"] for rule in report["rules"] if rule["outcome"] == "failed"] == ["gap"]
    assert "SPEC_MISMATCH" in refused
    assert "--environment" in refused


def test_command_says_that_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--policy-server", "127.0.0.1:1", "--connect-timeout-s", "0.1"]

    assert cli.run(command) == 69
    assert "does not serve within 0.1 s" in capsys.readouterr().err


def test_learner_is_not_fed_without_consent(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--learner", "127.0.0.1:1"]) == 78
    assert "--disposable" in capsys.readouterr().err
