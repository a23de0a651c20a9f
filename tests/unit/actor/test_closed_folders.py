"""Folders and files of another user: every command says so in one line, and lists the others.

Written to find: Path.is_file() and exists() raise PermissionError, which ended commands with a
traceback; one unreadable metrics.jsonl hid all runs; a run that was deleted while it was listed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from another_user import as_another_user, open_folder

from impala_actor import eval_cli, report_cli, runs_cli
from impala_actor.evaluation.policy_export import validate_export_folder
from impala_actor.report import run_summary
from impala_actor.report.run_view import read_views
from impala_agent.agent_files import load_checkpoint, save_checkpoint
from impala_common.config.sections import EnvironmentConfig
from impala_common.config.toml_io import dump_config
from impala_common.config.train import TrainConfig
from impala_common.errors import CheckpointError, ConfigError
from impala_common.policy.exported_policy import load_policy
from impala_common.policy.frozen_run import load_frozen_run
from impala_common.process import exit_codes
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_policy_server import cli as policy_cli
from impala_server import cli, train_cli

Main = Callable[[list[str]], int]


def make_run(path: Path) -> RunDirectory:
    run = RunDirectory(path)
    run.create()
    run.config_path.write_text(dump_config(TrainConfig(environment=EnvironmentConfig(env="Here"))))
    run.metrics_path.write_text(json.dumps({metrics.STEPS: 4000, metrics.UPDATES: 4}) + "\n")
    return run


@pytest.fixture
def closed() -> Iterator[Path]:
    """A run in a folder that is closed to others, as /root is."""
    with open_folder() as folder:
        make_run(folder / "closed" / "run")
        (folder / "closed").chmod(0o000)
        yield folder / "closed" / "run"


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (train_cli.run, ["CartPole-v1", "--resume", "RUN"]),
        (train_cli.run, ["CartPole-v1", "--quiet", "--run-dir", "RUN"]),
        (train_cli.run, ["CartPole-v1", "--run-dir", "RUN", "--resume-if-exists"]),
        (train_cli.run, ["CartPole-v1", "--init-model-path", "RUN/checkpoints/best"]),
        (cli.run, ["--resume", "RUN"]),
        (eval_cli.main, ["RUN"]),
        (runs_cli.main, ["RUN"]),
        (report_cli.main, ["RUN"]),
        (policy_cli.run, ["--policy", "RUN", "--log-format", "text"]),
    ],
)
@pytest.mark.parametrize("is_long", [False, True])
def test_commands_refuse_what_they_cannot_look_into_in_one_line(
    closed: Path, capsys: pytest.CaptureFixture[str], main: Main, arguments: list[str],
    is_long: bool,
) -> None:  # fmt: skip
    path = closed.parent.parent / ("n" * 300) if is_long else closed
    arguments = [word.replace("RUN", str(path)) for word in arguments]

    with as_another_user():
        assert main(arguments) == exit_codes.CONFIG

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    assert ("File name too long" if is_long else "Permission denied") in captured.err


def test_outputs_into_closed_folders_are_refused_before_episodes(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_folder() as folder:
        run = make_run(folder / "run")
        for option, name in (("--plot", "x.png"), ("--video", "films"), ("--export", "policy")):
            with as_another_user():
                arguments = [str(run.path), option, str(closed / name)]
                assert eval_cli.main(arguments) == exit_codes.CONFIG

            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert error.startswith(f"error: {option} is ")
            assert "Permission denied" in error


def test_library_raises_errors_of_this_project_for_closed_folders(closed: Path) -> None:
    cases: list[Callable[[], object]] = [
        RunDirectory(closed).holds_run,
        lambda: load_frozen_run(closed),
        lambda: load_policy(closed),
        lambda: load_checkpoint(closed),
        lambda: save_checkpoint(closed, 1, {}, {}),
        lambda: validate_export_folder(closed),
        CheckpointStore(closed / "checkpoints").names,
        CheckpointStore(closed / "checkpoints").all_names,
        CheckpointStore(closed / "checkpoints").load_newest,
        lambda: CheckpointStore(closed / "checkpoints").load("best"),
    ]

    with as_another_user():
        for case in cases:
            with pytest.raises((ConfigError, CheckpointError), match="Permission denied"):
                case()


def test_listing_shows_a_run_with_closed_files_as_unreadable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_folder() as folder:
        make_run(folder / "good")
        make_run(folder / "closed_metrics").metrics_path.chmod(0o000)
        make_run(folder / "closed_checkpoints").checkpoints_path.chmod(0o000)
        make_run(folder / "closed_run").path.chmod(0o000)
        (folder / "link").symlink_to(folder / "closed_run" / "checkpoints")

        with as_another_user():
            assert runs_cli.main([str(folder), "--json"]) == exit_codes.OK

        found = map(json.loads, capsys.readouterr().out.splitlines())
        states = {Path(one["path"]).name: (one["state"], one["problem"]) for one in found}
        assert states["good"] == ("stopped", "")
        assert states["closed_checkpoints"] == ("stopped", "")
        state, problem = states["closed_metrics"]
        assert state == "unreadable"
        assert "Permission denied" in problem


def test_listing_survives_a_run_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    make_run(tmp_path / "other")

    summary = run_summary.summarise_run(tmp_path / "gone")

    assert (summary.state, summary.age_s) == ("unreadable", 0.0)


def test_report_leaves_out_videos_that_are_closed() -> None:
    with open_folder() as folder:
        run = make_run(folder / "run")
        run.videos_path.mkdir()
        for name in ("closed.mp4", "open.mp4"):
            (run.videos_path / name).write_bytes(b"film")
        (run.videos_path / "closed.mp4").chmod(0o000)
        os.symlink("nowhere", run.videos_path / "gone.mp4")

        with as_another_user():
            (view,) = read_views([run.path])
            assert [video.name for video in view.videos] == ["open.mp4"]
