"""The checkpoint thread: one save at a time, the newest state, and answers in bounded time."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from impala_common.errors import (
    AlreadyExistsError,
    CapacityError,
    CheckpointError,
    CheckpointUnreadableError,
    CheckpointWriteError,
    InvalidRequestError,
)
from impala_common.process import failpoints
from impala_common.run.checkpoint_manifest import MAX_MANIFEST_BYTES
from impala_common.run.checkpoints import CheckpointStore
from impala_server.learner import checkpoint_writer
from impala_server.learner.checkpoint_writer import CheckpointWriter
from impala_server.learner.host_buffers import HostBuffers
from impala_server.learner.training_state import StateSnapshot


class Source:
    """A learner's state, and a gate in front of its copy."""

    def __init__(self) -> None:
        self.version = 0
        self.num_taken = 0
        self.num_bytes = 1000
        self.state: dict[str, Any] = {}
        self.tensor_name = "w"
        self.wall_time_s = 0.0
        self.is_open = threading.Event()
        self.is_open.set()
        self.has_come = threading.Event()

    def take(self) -> StateSnapshot:
        version = self.version
        self.num_taken += 1
        self.has_come.set()
        assert self.is_open.wait(10.0)
        self.wall_time_s += 1.0
        counters = {
            "policy_version": version,
            "trained_steps": 10 * version,
            "wall_time_s": self.wall_time_s,
        }
        array = np.full(self.num_bytes // 8, version, np.int64)
        return StateSnapshot(
            {"weights": {self.tensor_name: array}}, {"counters": counters, **self.state}
        )


class Bench:
    """A writer, its source and its store."""

    def __init__(self, path: Path) -> None:
        self.source = Source()
        self.store = CheckpointStore(path, keep=2)
        self.events: list[str] = []
        self.writer = CheckpointWriter(
            self.store,
            self.source.take,
            lambda event, **_fields: self.events.append(event),
        )


@contextlib.contextmanager
def running(path: Path) -> Iterator[Bench]:
    bench = Bench(path)
    bench.writer.start()
    try:
        yield bench
    finally:
        bench.source.is_open.set()
        bench.writer.close(10.0)
        assert not bench.writer.is_alive()


def test_requests_during_a_save_are_met_by_one_more_of_the_newest_state(tmp_path: Path) -> None:
    """The fault: requests that join the save under way: its state is older than they are."""
    with running(tmp_path) as bench:
        source = bench.source
        source.is_open.clear()
        first = bench.writer.request()
        assert source.has_come.wait(10.0)
        source.version = 7
        later = [bench.writer.request() for _ in range(5)]
        source.is_open.set()

        assert first.wait().policy_version == 0
        assert {ticket.wait().policy_version for ticket in later} == {7}

    assert source.num_taken == 2
    assert bench.events == ["checkpoint_begin", "checkpoint_commit"] * 2


def test_request_without_news_is_the_checkpoint_there_is(tmp_path: Path) -> None:
    with running(tmp_path) as bench:
        first, again = bench.writer.request().wait(), bench.writer.request().wait()
        named = bench.writer.request("mine").wait()

    assert (first.is_new, again.is_new, named.is_new) == (True, False, True)
    assert again.name == first.name
    assert bench.store.all_names() == [first.name, "mine"]


@pytest.mark.parametrize("what", ["state", "num_bytes", "tensor_name", "version"])
def test_request_is_of_news_whatever_part_of_a_checkpoint_changed(
    tmp_path: Path, what: str
) -> None:
    """Seen to fail for all but the version: nothing else was compared."""
    changes = {"state": {"learning_rate": 1.0}, "num_bytes": 80, "tensor_name": "v", "version": 1}
    with running(tmp_path) as bench:
        first = bench.writer.request().wait()
        setattr(bench.source, what, changes[what])
        second, third = bench.writer.request().wait(), bench.writer.request().wait()

    assert (first.is_new, second.is_new, third.is_new) == (True, True, False)
    assert third.name == second.name != first.name


def test_checkpoint_that_could_not_be_read_again_is_an_alarm_until_one_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen to be written, and to be found out when the run was resumed."""
    with running(tmp_path) as bench:
        good = bench.writer.request().wait()
        bench.source.state = {"name": "x" * MAX_MANIFEST_BYTES}
        with pytest.raises(CheckpointUnreadableError, match=r"manifest.json would have .* bytes"):
            bench.writer.request().wait()
        alarm = bench.writer.alarm
        numbers = (bench.writer.num_failures, bench.writer.num_unreadable)
        names = bench.store.all_names()
        bench.source.state = {"name": "short"}
        bench.writer.request().wait()

    assert "cannot be read again" in alarm
    assert alarm in caplog.text
    assert numbers == (1, 1)
    assert names == [good.name]
    assert bench.store.load_newest().state["name"] == "short"
    assert bench.writer.alarm == ""


def test_request_of_a_name_that_is_not_to_be_had_is_refused_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as bench:
        bench.source.is_open.clear()
        bench.writer.request()
        assert bench.source.has_come.wait(10.0)
        bench.writer.request("mine")
        with pytest.raises(AlreadyExistsError):
            bench.writer.request("mine")
        with pytest.raises(InvalidRequestError):
            bench.writer.request("../x")
        for number in range(checkpoint_writer._MAX_WAITING - 1):
            bench.writer.request(f"n{number}")
        with pytest.raises(CapacityError):
            bench.writer.request("one-more")


def test_ticket_that_is_not_settled_in_time_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs: whoever needs durability waits with a bound; the learner does not wait.

    Seen to fail, for ever, with a wait on the event alone.
    """
    monkeypatch.setattr(checkpoint_writer, "SAVE_TIMEOUT_S", 0.2)
    with running(tmp_path) as bench:
        bench.source.is_open.clear()
        ticket = bench.writer.request()
        assert ticket.poll() is None
        with pytest.raises(CheckpointWriteError, match=r"not on disk after 0\.2 s"):
            ticket.wait()
        bench.source.is_open.set()
        bench.writer.close(10.0)
        assert ticket.wait().name == "step-000000000000"  # it got there in the end


@pytest.mark.parametrize("action", ["raise:oserror", "raise"])
def test_save_that_fails_is_counted_and_the_next_succeeds(tmp_path: Path, action: str) -> None:
    """The disk fails (docs/faults.md, 24, 25). The fault: a thread that any error ends."""
    with running(tmp_path) as bench:
        with failpoints.armed(f"checkpoint.mid_write=once:{action}"):
            with pytest.raises(CheckpointWriteError):
                bench.writer.request().wait()
            assert bench.writer.num_failures == 1
            assert bench.writer.last.name == ""
        saved = bench.writer.request().wait()

    assert saved.is_new
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]
    assert bench.events[:2] == ["checkpoint_begin", "checkpoint_failed"]


def test_close_writes_what_was_asked_for_and_then_takes_no_more(tmp_path: Path) -> None:
    with running(tmp_path) as bench:
        tickets = [bench.writer.request(), bench.writer.request("mine")]
        bench.writer.close(10.0)
        with pytest.raises(CheckpointWriteError, match="ending"):
            bench.writer.request()

    assert [ticket.wait().is_new for ticket in tickets] == [True, True]


def save_with_file_limit(path: Path, num_bytes: int) -> str:
    """Returns what a child process says whose files may have `num_bytes` bytes at most."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
        try:
            CheckpointStore(path).save(2, {"weights": {"w": np.zeros(4000)}}, {})
            text = "saved"
        except CheckpointError as error:
            text = str(error)
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


def test_save_past_a_real_limit_of_the_system_leaves_nothing(tmp_path: Path) -> None:
    """A full disk without root: the kernel truncates the file (docs/faults.md, 24)."""
    store = CheckpointStore(tmp_path)
    store.save(1, {}, {})

    assert "File too large" in save_with_file_limit(tmp_path, 10_000)

    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000001"]
    assert save_with_file_limit(tmp_path, 100_000) == "saved"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(path)], capture_output=True)
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_disk_that_does_not_take_a_save_takes_the_next(small_disk: Path, trouble: str) -> None:
    """A full or read-only disk on a real file system (docs/faults.md, 24, 25)."""
    ballast = small_disk / "ballast"
    with running(small_disk / "checkpoints") as bench:
        bench.source.num_bytes = 200_000
        first = bench.writer.request().wait()
        if trouble == "full":
            ballast.write_bytes(bytes(700_000))
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        bench.source.version = 1
        with pytest.raises(CheckpointWriteError, match=r"No space left|Read-only"):
            bench.writer.request().wait()
        assert bench.store.load_newest().name == first.name
        if trouble == "full":
            ballast.unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        saved = bench.writer.request().wait()

    assert bench.store.names() == [first.name, saved.name]
    assert sorted(path.name for path in bench.store.path.iterdir()) == [first.name, saved.name]


def test_host_buffers_are_the_same_memory_each_time_and_no_view() -> None:
    """The fault: arrays over the live tensors."""
    buffers = HostBuffers()
    live: dict[str, Any] = {"a": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3)}

    first = buffers.copy({"weights": live})["weights"]
    before = {name: array.ctypes.data for name, array in first.items()}
    live["a"] += 1.0
    assert first["a"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    second = buffers.copy({"weights": live})["weights"]

    assert {name: array.ctypes.data for name, array in second.items()} == before
    assert second["a"].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert second["step"].shape == ()
