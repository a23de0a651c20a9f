"""Refused settings leave a resumed run unchanged, whichever process refuses them."""

from __future__ import annotations

import dataclasses
import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from running_server import TINY, RunningServer, make_config

from impala_common.config import TrainConfig
from impala_common.config.toml_io import load_config
from impala_common.errors import ConfigError, ImpalaError
from impala_common.run.run_directory import RunDirectory
from impala_server.learner import controller
from impala_server.start_checks import validate_start
from impala_server.supervisor import Supervisor

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    config = make_config(job={"total_steps": 400})
    with RunningServer(tmp_path / "run", config) as server:
        server.run_actor(TINY + "Counting-v0")
        server.wait_finished()
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def port_in_use() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def contents(run: RunDirectory) -> dict[str, bytes]:
    """Returns all files but the lock, whose text is a process id, and the history of addresses."""
    files = (path for path in run.path.rglob("*") if path.is_file() and path != run.lock_path)
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


def change(config: TrainConfig, section: str, **settings: object) -> TrainConfig:
    changed = dataclasses.replace(getattr(config, section), **settings)
    return dataclasses.replace(config, **{section: changed})


def try_to_go_on(config: TrainConfig, run: RunDirectory) -> str:
    """Returns what a learner server in `run` with these settings fails with."""
    with run.lock():
        supervisor = Supervisor(config, run)
        try:
            supervisor.start()
            supervisor.wait_until_bound()
            while supervisor.poll(0.1) is not None:
                pass
        except ImpalaError as error:
            return str(error)
        finally:
            supervisor.close()
    return ""


@pytest.mark.parametrize("front_end", ["in-process", "process"])
@pytest.mark.parametrize("what", ["network", "device", "memory", "port", "certificate"])
def test_run_whose_new_settings_are_refused_stays_as_it_was(
    run: RunDirectory, port_in_use: int, front_end: str, what: str
) -> None:
    """Seen to fail with config.toml written before the learner and the front end had agreed.

    Before: storage of any size was accepted, and the process that filled it was killed.
    """
    known = load_config(run.config_path)
    wanted = change(known, "transport", front_end=front_end)
    wanted = change(wanted, "job", total_steps=100_000)
    match what:
        case "network":
            wanted = change(wanted, "model", hidden_sizes=(7,))
        case "device":
            wanted = change(wanted, "job", device="cuda:99")
        case "memory":
            wanted = change(wanted, "rollout", batch_size=1 << 20, unroll_length=1 << 20)
        case "port":
            wanted = change(wanted, "transport", port=port_in_use)
        case "certificate":
            wanted = change(wanted, "security", tls_cert="none.crt", tls_key="none.key")
    before = contents(run)

    text = try_to_go_on(wanted, run)

    assert text
    assert "\n" not in text
    assert contents(run) == before


def test_disk_that_fills_while_the_learner_starts_is_told_in_one_line(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: the learner's traceback, and exit code 1."""

    def fail(*unused: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(controller, "write_specs", fail)

    text = try_to_go_on(change(load_config(run.config_path), "job", total_steps=800), run)

    assert text == (
        f"run folder is '{run.path}' but must be a folder that can be made and written to: "
        "No space left on device"
    )


def test_run_whose_new_settings_are_accepted_keeps_them(run: RunDirectory) -> None:
    config = change(load_config(run.config_path), "job", total_steps=800)

    with RunningServer(run.path, config) as server:
        server.run_actor(TINY + "Counting-v0")
        server.wait_finished()

    assert load_config(run.config_path).job.total_steps == 800


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden_sizes": (7,)}, "--hidden-sizes"),
        ({"activation": "relu"}, "--activation is 'relu' but must be tanh"),
        ({"normalise_observations": True}, "--normalise-observations"),
        ({"observation_scale": 0.5}, "--observation-scale is 0.5 but must be 1.0"),
        ({"observation_clip": 3.0}, "--observation-clip is 3.0 but must be 10.0"),
        ({"recurrence": "gru"}, "--recurrence"),
    ],
)
def test_resume_with_settings_that_compute_something_else_is_refused_beforehand(
    run: RunDirectory, settings: dict[str, object], named: str
) -> None:
    """Before: what leaves all shapes alone (activation, scale, clip) was accepted."""
    known = load_config(run.config_path)
    validate_start(known, run.path)

    with pytest.raises(ConfigError, match=named):
        validate_start(change(known, "model", **settings), run.path)
