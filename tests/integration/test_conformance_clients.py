"""The conformance kit against clients: the product's, the examples, and wrong ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from impala_conformance import cli
from impala_conformance.kit import CLIENT_RULES, find_rules, play_client
from impala_conformance.rule import Result

pytestmark = pytest.mark.timeout(900)

SIDE = "client"
ADDRESS = "{address}"
KIT = Path(__file__).parents[1] / "kit"
PATIENCE_S = 60.0
# Of each kind one: a run of all rules takes a minute, so those are for make test-extended.
FEW_RULES = "hello-first, step-numbers, repetition, message-size, foreign-status, stale-session"
# A client that does nothing at all is found by waiting so long.
SILENT = {"sigterm"}
SHORT_PATIENCE_S = 3.0


def small_client(fault: str = "none", *more: str) -> list[str]:
    return [sys.executable, str(KIT / "small_thin_client.py"), ADDRESS, fault, *more]


def outcomes(results: list[Result]) -> dict[str, str]:
    return {result.rule: f"{result.outcome} {result.text}".strip() for result in results}


def assert_only_skipped(results: list[Result], skipped: set[str]) -> None:
    found = {name: text for name, text in outcomes(results).items() if text != "passed"}
    assert set(found) == skipped, str(found)
    assert all(text.startswith("skipped") for text in found.values()), str(found)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("b" * 64 + "\n")
    return path


def play_all(command: list[str], names: str = "", token_file: str = "") -> list[Result]:
    return play_client(
        command,
        find_rules(SIDE, names),
        patience_s=PATIENCE_S,
        connect_timeout_s=PATIENCE_S,
        token_file=token_file,
    )


@pytest.mark.slow
@pytest.mark.extended
def test_another_implementation_passes(token: Path) -> None:
    results = play_all(small_client("none", str(token)), token_file=str(token))

    assert_only_skipped(results, set())


@pytest.mark.slow
@pytest.mark.parametrize("rules", [FEW_RULES, pytest.param("", marks=pytest.mark.extended)])
def test_thin_actor_passes(token: Path, rules: str) -> None:
    """Its slots wait for each other, as those of a vector environment do."""
    command = [sys.executable, "-m", "impala_thin", "--server", ADDRESS, "--env", "CartPole-v1"]
    options = ["--slots", "3", "--token-file", str(token)]
    results = play_all([*command, *options], rules, token_file=str(token))

    assert_only_skipped(results, set() if rules else {"message-bools"})


@pytest.mark.slow
@pytest.mark.extended
def test_thin_actor_with_one_slot_and_numbers_as_actions_passes() -> None:
    command = [sys.executable, "-m", "impala_thin", "--server", ADDRESS, "--env", "Pendulum-v1"]
    results = play_all(command)

    assert_only_skipped(results, {"message-bools", "token", "slow-slots", "answer-groups"})


@pytest.mark.slow
@pytest.mark.parametrize("rules", [FEW_RULES, pytest.param("", marks=pytest.mark.extended)])
def test_javascript_client_passes(javascript_client: list[str], rules: str) -> None:
    results = play_all([*javascript_client, ADDRESS, "3"], rules)

    assert_only_skipped(results, set() if rules else {"message-bools", "token"})


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.timeout(900)
def test_cpp_client_passes(cpp_client: Path) -> None:
    results = play_all([str(cpp_client), ADDRESS, "3"])

    assert_only_skipped(results, {"message-bools", "token"})


def list_rules() -> list[Any]:
    """Returns the names of all rules; three of four are for make test-extended."""
    extended = pytest.mark.extended
    return [
        pytest.param(rule.name, marks=[extended] if place % 4 else [])
        for place, rule in enumerate(CLIENT_RULES)
    ]


@pytest.mark.parametrize("rule", list_rules())
def test_planted_violation_is_found_by_name(rule: str, token: Path) -> None:
    """A client with one fault fails the rule that is about it."""
    results = play_client(
        small_client(rule, str(token)),
        find_rules(SIDE, rule),
        patience_s=SHORT_PATIENCE_S if rule in SILENT else PATIENCE_S,
        connect_timeout_s=PATIENCE_S,
        token_file=str(token) if rule == "token" else "",
    )

    assert [result.outcome for result in results] == ["failed"], str(outcomes(results))


def test_command_prints_a_table_and_fails_on_a_violation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--client", "--rules", "client-id, protocol-version"]
    assert cli.run([*options, "--", *small_client("client-id")]) == 1
    table = capsys.readouterr().out
    assert cli.run([*options, "--json", "--", *small_client()]) == 0
    report = json.loads(capsys.readouterr().out)

    assert "1 passed, 1 failed, 0 skipped" in table
    assert (report["passed"], report["failed"], report["side"]) == (2, 0, "client")
    assert ADDRESS in report["address"]


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ([sys.executable, "-c", "raise SystemExit('no {address}')"], 69, "exit code 1: no 127"),
        (["no-such-client", ADDRESS], 78, "no-such-client"),
        ([sys.executable, "-c", "pass"], 78, "expected {address}"),
        ([], 78, "after --"),
    ],
)
def test_command_that_is_no_client_is_refused(
    capsys: pytest.CaptureFixture[str], command: list[str], code: int, text: str
) -> None:
    assert cli.run(["--client", "--", *command]) == code

    assert text in capsys.readouterr().err


def test_option_of_servers_is_refused_with_a_client(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--client", "--ca-file", "ca.pem", "--", *small_client()]) == 78

    assert "--ca-file: expected without --client" in capsys.readouterr().err
