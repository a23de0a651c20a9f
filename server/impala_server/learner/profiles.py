"""UpdateProfiler: records updates with torch's profiler on request.

The controller starts a recording and polls for its end; a learner thread makes it under the update
lock. torch's profiler belongs to the thread that started it, so one learner thread is recorded from
its next update on, and updates of other threads are not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from impala_common.errors import IllegalTransitionError
from impala_common.run.run_directory import TEMPORARY_PREFIX

_LOG = logging.getLogger(__name__)
_KEEP = 16
_SUFFIX = ".json.gz"


class Recording:
    """One recording, from its request to its file."""

    def __init__(self, num_updates: int, path: Path) -> None:
        """Waits for the first update."""
        self.num_left = num_updates
        self.path = path
        self.is_done = threading.Event()
        self.is_cancelled = False
        self.error = ""
        self._thread: int | None = None
        self._profiler: torch.profiler.profile | None = None

    def is_mine(self) -> bool:
        """Returns whether the calling thread is the recorded one, or no thread is recorded yet."""
        return self._thread in (None, threading.get_ident())

    def begin(self) -> None:
        """Starts the profiler unless it runs."""
        if self._profiler is not None:
            return
        self._thread = threading.get_ident()
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()

    def finish(self) -> None:
        """Stops the profiler and writes the file."""
        profiler, self._profiler = self._profiler, None
        try:
            if profiler is None:
                return
            profiler.stop()
            if not self.is_cancelled:
                self.path.parent.mkdir(exist_ok=True)
                temporary = self.path.with_name(f"{TEMPORARY_PREFIX}{self.path.name}")
                profiler.export_chrome_trace(str(temporary))
                os.replace(temporary, self.path)
                _remove_old(self.path.parent)
        except (OSError, RuntimeError) as error:  # a failed profile must not end the run
            self.error = str(error)
            _LOG.warning("no profile: %s", error)
        finally:
            self.is_done.set()


class UpdateProfiler:
    """At most one recording at a time."""

    def __init__(self) -> None:
        """Starts without a recording."""
        self._recording: Recording | None = None

    def request(self, num_updates: int, path: Path) -> Recording:
        """Requests a recording of the next updates into `path`.

        Raises:
          IllegalTransitionError: another recording is under way.
        """
        if self._recording is not None:
            raise IllegalTransitionError("another profile is being recorded: wait for its end")
        self._recording = Recording(num_updates, path)
        return self._recording

    def cancel(self, recording: Recording) -> None:
        """Cancels the recording; its thread stops the profiler at its next update."""
        recording.is_cancelled = True
        recording.num_left = 0
        if self._recording is recording and recording.is_mine():
            self._recording = None

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Surrounds one update. Called by learner threads with the update lock held."""
        recording = self._recording
        if recording is None or not recording.is_mine():
            yield
            return
        if recording.num_left > 0:
            recording.begin()
        yield
        recording.num_left -= 1
        if recording.num_left <= 0:
            recording.finish()
            self._recording = None


def _remove_old(folder: Path) -> None:
    files = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in files[:-_KEEP]:
        path.unlink(missing_ok=True)


def profile_path(folder: Path, policy_version: int) -> Path:
    """Returns a path for a new profile that begins at `policy_version`."""
    name, number = f"updates-from-{policy_version:09d}", 1
    path = folder / f"{name}{_SUFFIX}"
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}{_SUFFIX}"
    return path
