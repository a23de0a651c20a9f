"""Paths, the lock and atomic files of a run directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from impala_common.errors import RunInUseError
from impala_common.run import run_directory
from impala_common.run.run_directory import (
    RunDirectory,
    default_run_path,
    write_json_atomic,
    write_text_atomic,
)

HOLD_LOCK = """
import sys, time
from impala_common.run.run_directory import RunDirectory
lock = RunDirectory(sys.argv[1]).lock()
print("held", flush=True)
time.sleep(60)
"""


def test_lock_when_held_names_folder_and_process(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")

    with run.lock(), pytest.raises(RunInUseError) as caught:
        run.lock()

    assert str(run.path) in str(caught.value)
    assert f"process {os.getpid()}" in str(caught.value)


def test_lock_after_release_can_be_taken(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.lock() as first:
        pass
    first.close()

    with run.lock():
        assert run.lock_path.read_text() == f"{os.getpid()}\n"


def test_lock_of_killed_process_is_free(tmp_path: Path) -> None:
    """The fault: a lock made by creating the file exclusively."""
    run = RunDirectory(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(RunInUseError, match=f"process {child.pid}"):
        run.lock()

    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    with run.lock():
        pass


def test_lock_with_foreign_text_says_unknown(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.lock():
        run.lock_path.write_bytes(b"\xff\x1b[31m")

        with pytest.raises(RunInUseError, match=r"process \(unknown\)"):
            run.lock()


def test_create_makes_folders_and_may_be_repeated(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "b")
    run.create()
    run.create()

    assert run.checkpoints_path.is_dir()
    assert run.log_path.is_dir()


@pytest.mark.parametrize("fault", ["write", "replace"])
def test_write_when_disk_fails_keeps_old_text_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The fault: `path.write_text` in place of the temporary file."""
    path = tmp_path / "address"
    write_text_atomic(path, "old")

    def fail(*unused_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, {"write": "fsync", "replace": "replace"}[fault], fail)

    with pytest.raises(OSError, match="No space"):
        write_text_atomic(path, "new")

    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["address"]


def test_write_json_reads_back_and_refuses_nan(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "specs.json", {"a": [1, 2.5, None]})

    assert '"a"' in (tmp_path / "specs.json").read_text()
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(tmp_path / "specs.json", {"a": float("nan")})


@pytest.mark.parametrize(
    ("env", "tag", "start"),
    [
        ("CartPole-v1", "default", "cartpole-v1-default-"),
        ("ALE/Pong-v5", "a b", "ale-pong-v5-a-b-"),
        ("../../etc/passwd", "..", "etc-passwd-default-"),
        ("module:Env-v0", "x\n\x1b", "module-env-v0-x-"),
        ("", "", "run-default-"),
        ("x" * 300, "y", "x" * 48 + "-y-"),
    ],
)
def test_default_run_path_is_one_plain_name_below_runs(env: str, tag: str, start: str) -> None:
    path = default_run_path(env, tag)

    assert path.parent == Path("runs")
    assert path.name.startswith(start)


def test_modules_a_supervisor_needs_import_neither_torch_nor_grpc() -> None:
    code = (
        "import sys, impala_common.run.checkpoints, impala_common.config.cli, "
        "impala_common.process.logs, impala_common.run.metrics, "
        "impala_server.tracking.metrics_writer, impala_server.progress\n"
        "assert not {'torch', 'grpc'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_temporary_prefix_hides_files() -> None:
    assert run_directory.TEMPORARY_PREFIX.startswith(".")


def test_names_of_new_folders_are_synced_up_to_the_first_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: after a power cut the run's folder itself could be missing."""
    synced: list[Path] = []
    monkeypatch.setattr(run_directory, "sync_directory", synced.append)
    run = RunDirectory(tmp_path / "runs" / "one")

    run.create()
    with run.lock():
        pass

    assert synced == [tmp_path, tmp_path / "runs", run.path, run.path]
    synced.clear()
    run.create()
    assert synced == []


def test_names_of_a_default_run_and_of_the_folder_above_it_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: only folders that were named on the command line were."""
    synced: list[Path] = []
    monkeypatch.setattr(run_directory, "sync_directory", lambda path: synced.append(path.resolve()))
    monkeypatch.chdir(tmp_path)

    run_directory.make_default_run("CartPole-v1", "")

    assert synced == [tmp_path, tmp_path / "runs"]
