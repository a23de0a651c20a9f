"""Processes that cannot be started: each says so by name, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from running_server import make_config

from impala_common.errors import ImpalaError
from impala_common.process import starting
from impala_common.process.answering import run_to_its_end
from impala_common.run.run_directory import RunDirectory
from impala_server.local.process import LocalProcess
from impala_server.local.ranks import LocalRanks
from impala_server.supervisor import Supervisor


class NoMoreProcesses(subprocess.Popen):  # type: ignore[type-arg]
    """As on a machine that has as many processes as it may have."""

    def __init__(self, *unused: Any, **unused_too: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def __del__(self, *unused: Any) -> None:
        pass


@pytest.fixture
def no_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", NoMoreProcesses)


@pytest.mark.usefixtures("no_more_processes")
def test_learner_that_cannot_be_started_is_named_and_not_waited_for(tmp_path: Path) -> None:
    """Seen to fail: a traceback, after 18 s of waiting for processes that there never were."""
    config = make_config(transport={"front_end": "process"})
    supervisor = Supervisor(config, RunDirectory(tmp_path / "run"))

    with pytest.raises(ImpalaError, match=r"^the learner process cannot be started: .*unavail"):
        supervisor.start()

    closing = threading.Thread(target=supervisor.close, daemon=True)
    closing.start()
    closing.join(10.0)
    assert not closing.is_alive(), "the supervisor waits for processes that were never started"


@pytest.mark.usefixtures("no_more_processes")
def test_actor_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    actor = LocalProcess("actor-0", ["true"], tmp_path / "log")

    with pytest.raises(ImpalaError, match=r"^actor-0 cannot be started: "):
        actor.start()


def test_log_that_cannot_be_opened_is_a_start_that_failed(tmp_path: Path) -> None:
    actor = LocalProcess("actor-0", ["true"], tmp_path / "no folder" / "log")

    with pytest.raises(ImpalaError, match=r"^actor-0 cannot be started: .*No such file"):
        actor.start()


@pytest.mark.usefixtures("no_more_processes")
def test_rank_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    config = make_config(ranks={"learner_ranks": 2})
    ranks = LocalRanks(config, RunDirectory(tmp_path / "run"))

    with pytest.raises(ImpalaError, match=r"^learner rank 1 cannot be started: "):
        ranks.start()
    ranks.stop()


@pytest.mark.usefixtures("no_more_processes")
def test_process_that_answers_and_cannot_be_started_is_named() -> None:
    with pytest.raises(ImpalaError, match=r"^the process that answers .* cannot be started: "):
        run_to_its_end(["true"], 10.0)


def test_settings_need_no_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail where all folders for temporary files are read-only or full."""
    monkeypatch.setattr(starting.tempfile, "tempdir", str(tmp_path / "none"))

    with starting.open_settings("a = 1\n") as file:
        assert subprocess.run(["cat"], stdin=file, capture_output=True).stdout == b"a = 1\n"


def test_memory_file_is_a_file_of_its_own_on_any_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail without memfd: the descriptor was closed with the file it came from."""
    monkeypatch.delattr(os, "memfd_create", raising=False)

    with starting.open_settings("a = 1\n") as file:
        assert file.read() == b"a = 1\n"
