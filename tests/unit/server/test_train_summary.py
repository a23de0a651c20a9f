"""What impala-train says of a run: commands that can be pasted, and what could not be written."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from impala_common.config.cli import parse_train_config
from impala_common.errors import ConfigError
from impala_common.run.run_directory import RunDirectory
from impala_server import train_cli
from impala_server.cli import open_run
from impala_server.start_checks import FinishedRun, describe_finished

NAME = "[bold] my 'run'"


@pytest.mark.parametrize("reason", ["finished", "stopped"])
def test_summary_names_commands_that_a_shell_reads_as_they_are_meant(
    tmp_path: Path, reason: str
) -> None:
    """Seen to fail: the name was not quoted, and its brackets were taken for a style."""
    console = Console(file=io.StringIO(), width=40)
    path = tmp_path / NAME
    path.mkdir()
    result = {
        "reason": reason, "steps": 1, "updates": 1, "wall_time_s": 1.0, "checkpoint": "x",
        "best_steps": None,
    }  # fmt: skip

    train_cli._print_summary(console, result, RunDirectory(path))

    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert f"run         {path}" in lines
    assert str(path) in shlex.split(lines[-1])


def test_hint_of_a_finished_run_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / NAME

    text = describe_finished(path, FinishedRun(10, 1, 1, "x", 10, 0))

    _, _, command = text.partition("--resume ")
    assert shlex.split(command)[0] == str(path)


def test_refusal_of_a_folder_that_holds_a_run_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.mkdir()
    RunDirectory(path).specs_path.write_text("{}")
    arguments = parse_train_config(
        "impala-train", ["--env", "CartPole-v1", "--run-dir", str(path)], "", train_cli.TrainOptions
    )

    with pytest.raises(ConfigError) as refusal:
        open_run(arguments)

    _, _, command = str(refusal.value).partition("--resume ")
    assert shlex.split(command)[0] == str(path)


def test_evaluation_that_cannot_be_written_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen to fail: an OSError after the training, and no summary."""
    run_directory = RunDirectory(tmp_path / "gone")

    train_cli._keep({"return_mean": 1.0}, run_directory)

    text = capsys.readouterr().err
    assert text.startswith(f"warning: {run_directory.evaluation_path} could not be written: ")
