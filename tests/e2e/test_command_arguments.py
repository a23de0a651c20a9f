"""Arguments of the commands: help, and invalid ones refused by name before any work starts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import ENV, Command

from impala_common.process.exit_codes import CONFIG, TEMPORARY, UNUSABLE_DATA
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server import cli, train_cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.mark.parametrize("damage", ["corrupted", "foreign", "specs"])
def test_resume_of_a_run_that_cannot_be_used_says_why(
    tmp_path: Path, finished: tuple[RunDirectory, dict[str, Any]], damage: str
) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(finished[0].path, run.path)
    if damage == "specs":
        run.specs_path.write_text("{}")
    for name in CheckpointStore(run.checkpoints_path).names():
        folder = run.checkpoints_path / name
        if damage == "corrupted":
            data = bytearray((folder / "weights.safetensors").read_bytes())
            data[-1] ^= 1
            (folder / "weights.safetensors").write_bytes(data)
        elif damage == "foreign":
            (folder / "manifest.json").write_text('{"format": "another", "version": 1}')

    more = ["--total-steps", "9000", "--port", "0", "--quiet"]
    with Command(tmp_path, "impala-server", "--resume", "run", *more) as command:
        assert command.wait() == UNUSABLE_DATA, command.err

    last = command.err.splitlines()[-1]
    text = {
        "corrupted": "sha256 does not match the manifest",
        "foreign": "damaged or foreign: expected format",
        "specs": "specs.json cannot be read",
    }[damage]
    assert last.startswith("error: ")
    assert text in last
    assert "Traceback" not in command.err


def test_resume_with_another_network_is_refused(
    tmp_path: Path, finished: tuple[RunDirectory, dict[str, Any]]
) -> None:
    shutil.copytree(finished[0].path, tmp_path / "run")
    options = ["--resume", "run", "--port", "0", "--quiet", "--hidden-sizes", "7", "7"]
    options += ["--total-steps", "9000"]
    with Command(tmp_path, "impala-server", *options) as command:
        assert command.wait() == CONFIG, command.err

    assert "--hidden-sizes is (7, 7) but must be (64, 64) with --resume" in command.err
    assert "Traceback" not in command.err


def test_server_on_a_port_in_use_refuses(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        options = ["--env", ENV, "--port", str(port), "--run-dir", "run", "--quiet"]
        with Command(tmp_path, "impala-server", *options) as command:
            assert command.wait() == TEMPORARY

    assert f"error: cannot listen on 127.0.0.1:{port}: is another server" in command.err
    assert "Traceback" not in command.err


@pytest.mark.parametrize("main", [cli.run, train_cli.run])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--batch-size", "0"], ["--batch-size", "0", "greater than 0"]),
        (["--discount", "1.5"], ["--discount", "1.5", "in [0.0, 1.0]"]),
        (["--clip-c-threshold", "2"], ["--clip-c-threshold", "at most clip_rho", "contraction"]),
        (["--host", "0.0.0.0"], ["--host", "loopback", "neither encrypted", "--allow-insecure"]),
        (["--host", "learner.example.org"], ["--host", "a loopback address"]),
        (["--resume", "no-such-run"], ["--resume", "no-such-run", "a run's folder"]),
        (["--device", "tpu"], ["--device", "tpu", "auto, cpu, cuda"]),
        (
            ["--lockstep", "--num-actors", "2"],
            ["--num-actors", "2", "1 with --lockstep", "not determined"],
        ),
    ],
)
def test_setting_that_cannot_work_is_told_by_name_value_rule_and_consequence(
    main: Any,
    options: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["--env", ENV, *options]) == CONFIG

    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    for part in parts:
        assert part in text
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_train_in_a_folder_that_holds_a_run_is_refused(
    finished: tuple[RunDirectory, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(finished[0].path)

    assert train_cli.run(["--env", ENV, "--run-dir", path]) == CONFIG

    assert f"go on with --resume {path}" in capsys.readouterr().err


def test_train_in_a_folder_in_use_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory(tmp_path).lock():
        assert train_cli.run(["--env", ENV, "--run-dir", str(tmp_path)]) == TEMPORARY

    assert f"is in use by process {psutil.Process().pid}" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["impala_actor.cli", "impala_server.cli"])
def test_help_is_shown_without_loading_torch_or_grpc(tmp_path: Path, module: str) -> None:
    code = f"""
        import sys
        from {module} import run
        try:
            run(["--help"])
        except SystemExit as end:
            assert end.code == 0
        heavy = {{"torch", "grpc", "gymnasium", "numpy.testing"}} & set(sys.modules)
        assert not heavy, heavy
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert "usage: impala-" in done.stdout
