"""RunDirectory: paths and lock of a run's folder, and atomic writes of small files.

`impala-train` and `impala-server` create it and hold its lock while they work in it; `impala-eval`
only reads. Readers always see complete files. Knows neither torch nor gRPC: the supervisor imports
it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from impala_common.errors import ConfigError, RunInUseError
from impala_common.process.utf8 import is_utf8

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of unfinished files and folders; never read, removed by the next writer."""


class RunDirectory:
    """Paths inside the folder of one run.

    Attributes:
      path: the folder.
      config_path: all settings of the run, complete (config.toml).
      specs_path: specifications of environment and model (specs.json).
      checkpoints_path: folder of checkpoints, see `impala_common.run.checkpoints`.
      candidates_path: checkpoints that wait for their evaluation (candidates).
      metrics_path: one JSON line of metrics per interval (metrics.jsonl).
      tensorboard_path: folder of TensorBoard event files.
      videos_path: folder of videos of evaluations (videos).
      address_path: HOST:PORT the learner listens on while it runs (address).
      policy_address_path: HOST:PORT of the policy server beside the learner (policy_address).
      policy_admin_address_path: address of its admin service (policy_admin_address).
      policy_audit_path: as audit_path, of the policy server (policy_audit.jsonl).
      admin_socket_path: Unix socket of the admin service while it runs (admin.sock).
      admin_address_path: its address, wherever it is (admin_address).
      audit_path: one JSON line per change an administrator made or tried (audit.jsonl).
      profiles_path: folder of torch profiles (profiles).
      evaluation_path: result of the evaluation at the end of impala-train (evaluation.json).
      log_path: folder of the logs of child processes (logs).
      lock_path: file whose flock says that a process works here (lock).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.toml"
        self.specs_path = self.path / "specs.json"
        self.checkpoints_path = self.path / "checkpoints"
        self.candidates_path = self.path / "candidates"
        self.metrics_path = self.path / "metrics.jsonl"
        self.tensorboard_path = self.path / "tensorboard"
        self.videos_path = self.path / "videos"
        self.address_path = self.path / "address"
        self.policy_address_path = self.path / "policy_address"
        self.policy_admin_address_path = self.path / "policy_admin_address"
        self.policy_audit_path = self.path / "policy_audit.jsonl"
        self.admin_socket_path = self.path / "admin.sock"
        self.admin_address_path = self.path / "admin_address"
        self.audit_path = self.path / "audit.jsonl"
        self.profiles_path = self.path / "profiles"
        self.evaluation_path = self.path / "evaluation.json"
        self.log_path = self.path / "logs"
        self.lock_path = self.path / "lock"
        self._lock: RunLock | None = None

    def __repr__(self) -> str:
        """Returns the class name and the path."""
        return f"RunDirectory({str(self.path)!r})"

    def holds_run(self) -> bool:
        """Returns whether the folder has a run with known specifications.

        Raises:
          ConfigError: it cannot be looked into.
        """
        with reading("run folder", self.path, "a folder that can be read"):
            return self.specs_path.exists()

    def create(self) -> None:
        """Makes the folder, and those inside it that several processes write to."""
        make_folder(self.checkpoints_path)
        make_folder(self.log_path)

    def lock(self) -> RunLock:
        """Locks the run for this process without waiting.

        Returns:
          The held lock: a context manager, also released by `close()`, and by the end of this
          process and of the children that inherited it.

        Raises:
          RunInUseError: another process, or another lock of this one, holds it.
          ConfigError: the folder cannot be made or written to, or no message can name it.
        """
        if not is_utf8(str(self.path.absolute())):
            raise ConfigError("run folder", str(self.path), "a folder whose path is UTF-8")
        with self.written():
            make_folder(self.path)
            self._lock = RunLock(self.lock_path)
        return self._lock

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Returns a context for writes without which no run can be.

        Raises:
          ConfigError: in place of an OSError, such as of a full disk.
        """
        try:
            yield
        except OSError as error:
            raise _unusable_folder(self.path, error) from error

    @property
    def lock_descriptors(self) -> tuple[int, ...]:
        """The held lock's file descriptor; empty if this object holds none.

        For children that write to the run: it stays locked until they have ended, too.
        """
        descriptor = self._lock.descriptor if self._lock is not None else None
        return () if descriptor is None else (descriptor,)


class RunLock:
    """A held flock on RUN/lock; the file's text is the holder's process id.

    The file stays when the lock is released: removing it would let two
    processes hold locks on two files of the same name.

    Attributes:
      descriptor: of the locked file; None once it is released.
    """

    def __init__(self, path: Path) -> None:
        # O_CLOEXEC (Python's default): only a child that gets the descriptor keeps the lock.
        self.descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self.descriptor, 32).decode("ascii", "replace").strip()
            self.close()
            raise RunInUseError(
                f"run directory {path.parent} is in use by process "
                f"{holder if holder.isdecimal() else '(unknown)'}; "
                "wait for it to end, or choose another --run-dir"
            ) from None
        except BaseException:
            self.close()
            raise
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Releases the lock; a second call does nothing."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> RunLock:
        """Returns the held lock."""
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Releases the lock."""
        self.close()


def default_run_path(env: str, tag: str) -> Path:
    """Returns runs/<env>-<tag>-<local time>, the default folder of a run."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{_slug(env) or 'run'}-{_slug(tag) or 'default'}-{stamp}"


def make_default_run(env: str, tag: str) -> RunDirectory:
    """Makes the default folder of a run; no other process gets the same one.

    Raises:
      ConfigError: it cannot be made.
    """
    path = default_run_path(env, tag)
    for number in itertools.count(1):
        chosen = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            make_folder(chosen.parent)
            chosen.mkdir()
            sync_directory(chosen.parent)
        except FileExistsError as error:
            if chosen.is_dir():
                continue  # another run started in the same second
            raise _unusable_folder(chosen, error) from error
        except OSError as error:
            raise _unusable_folder(chosen, error) from error
        return RunDirectory(chosen)
    raise AssertionError("unreachable: the numbers do not end")


@contextlib.contextmanager
def reading(name: str, path: Path, rule: str = "a run's folder") -> Iterator[None]:
    """Returns a context for looking into what a user named; it may be another user's.

    Args:
      name: of the setting or argument.
      path: its value.
      rule: what it must be.

    Raises:
      ConfigError: in place of an OSError. Path.exists() and is_file() raise one for folders that
        are closed to this user, and for names that are too long.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(name, str(path), rule, _describe(error)) from error


def _describe(error: OSError) -> str:
    text = error.strerror or str(error)  # sockets raise some without a number
    return f"{text}: {error.filename}" if error.filename else text


def _unusable_folder(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        "run folder",
        str(path),
        "a folder that can be made and written to",
        _describe(error),
    )


def _slug(text: str) -> str:
    """Returns `text` as a file name: special characters become dashes."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.")[:48]


def write_text_atomic(path: Path, text: str) -> None:
    """Replaces `path` by `text` (UTF-8), atomically: a crash leaves the old or the new content."""
    write_bytes_atomic(path, text.encode())


def write_named_file(option: str, path: Path, text: str) -> None:
    """Replaces `path`, which `option` names, by `text`; as `write_text_atomic`.

    Raises:
      ConfigError: it cannot be written.
    """
    with reading(option, path, "a file that can be written"):
        write_text_atomic(path, text)


def write_json_atomic(path: Path, value: Any) -> None:  # Any: JSON
    """Replaces `path` by `value` as indented JSON; as `write_text_atomic`."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data`; as `write_text_atomic`."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        write_bytes_synced(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_bytes_synced(path: Path, data: bytes) -> None:
    """Writes a new file and syncs its content; `sync_directory` syncs its name."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; returns when the names of all new ones are on disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_directory(folder.parent)


def sync_directory(path: Path) -> None:
    """Syncs the names in folder `path` to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
