"""What holds for each command: streams that are closed or know no ±, refusals before torch.

The list of commands is that of pyproject.toml: a new one has to be added here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from commands import TRAIN

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = Path(sys.executable).parent
RUN_S = 100.0
PLAIN = {**os.environ, "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"}
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
REFUSED = {
    "impala-train": ["--env", "CartPol-v1"],
    "impala-server": ["--env", "CartPole-v1", "--host", "0.0.0.0"],
    "impala-actor": ["--server", "127.0.0.1:1", "--env", "CartPol-v1"],
    "impala-eval": ["no-such-run±"],
    "impala-evaluator": ["--server", "127.0.0.1:1", "--env", "CartPol-v1"],
    "impala-policy-server": ["--learner", "http://±"],
    "impala-thin-actor": ["--server", "127.0.0.1:1", "--env", "CartPol-v1"],
    "impala-conformance": ["--policy-server", "http://±"],
    "impala-admin": ["--run", "no-such-run±", "status"],
    "impala-report": ["no-such-run±"],
    "impala-runs": ["no-such-folder±"],
    "impala-health": ["--server", "http://±"],
}
"""Arguments that each command refuses without a connection."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def play(name: str, arguments: list[str], tmp_path: Path, redirection: str = "") -> tuple[int, str]:
    """Returns exit code and stderr of a command in the C locale with ASCII streams."""
    module, function = SCRIPTS[name].split(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    words = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
    words += [sys.executable, "-X", "importtime", "-c", code, *arguments]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=PLAIN,
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    return done.returncode, done.stderr


def test_every_command_is_tried() -> None:
    assert sorted(REFUSED) == sorted(SCRIPTS)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_refusal_is_one_line_in_any_locale_and_comes_before_torch(
    name: str, tmp_path: Path
) -> None:
    """Before: impala-actor imported torch (3.5 s of CPU) to say that --env was mistyped, and
    impala-thin-actor ended with a traceback.
    """
    code, err = play(name, REFUSED[name], tmp_path)

    lines = err.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    assert code == 78, said
    assert len(said) == 1, said
    assert "error: " in said[0]
    assert "impala_common" in imported or "grpc" in imported, "the list of imports is not read"
    assert imported & {"torch", "tensorboardX", "matplotlib", "wandb", "pandas"} == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--token-file", "--ca-file"])
@pytest.mark.parametrize("name", ["impala-actor", "impala-evaluator", "impala-policy-server"])
def test_file_that_is_missing_is_named_before_torch(name: str, option: str, tmp_path: Path) -> None:
    server = "--learner" if name == "impala-policy-server" else "--server"
    env = [] if name == "impala-policy-server" else ["--env", "CartPole-v1"]
    words = [server, "127.0.0.1:1", *env, option, "no-such-file"]

    code, err = play(name, words, tmp_path)

    assert code == 78
    assert f"error: {option} is '{tmp_path}/no-such-file' but must be a readable file" in err
    assert not re.search(r"\| +torch$", err, re.MULTILINE)


def test_policy_that_is_missing_is_named_before_torch(tmp_path: Path) -> None:
    code, err = play("impala-policy-server", ["--policy", "no-such-run"], tmp_path)

    assert code == 78
    assert "error: RUN is 'no-such-run' but must be a run's folder" in err
    assert not re.search(r"\| +torch$", err, re.MULTILINE)


@pytest.mark.parametrize(
    "redirection", [pytest.param("2>&-", marks=pytest.mark.extended), ">&- 2>&- <&-"]
)
@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_closed_streams_change_no_exit_code(name: str, redirection: str, tmp_path: Path) -> None:
    assert play(name, REFUSED[name], tmp_path, redirection)[0] == 78


@pytest.mark.timeout(320)
@pytest.mark.parametrize("redirection", ["2>&- <&-", pytest.param("", marks=pytest.mark.extended)])
def test_training_to_its_end_with_streams_of_any_kind(redirection: str, tmp_path: Path) -> None:
    """The result is whole, and what is said is ASCII."""
    options = ["--total-steps", "3000", "--eval-episodes", "4", "--run-dir", "run", "--json"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", COMMANDS / "impala-train", *TRAIN, *options],
        cwd=tmp_path,
        env=PLAIN,
        capture_output=True,
        timeout=3 * RUN_S,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluation"]["num_episodes"] == 4
    assert done.stderr.isascii()
    assert b"Traceback" not in done.stderr
