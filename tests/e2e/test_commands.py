"""The commands as people run them: real processes, signals, exit codes, and nothing left behind.

"Seen to fail" in a docstring names a fault that was put into the code to see the test fail.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import Command, free_port, newest_metric, wait_for_end
from harness import RunningServer, make_config
from peer import peer_of

from impala_common import metrics
from impala_common.checkpoints import CheckpointStore
from impala_common.config.cli import parse_train_config
from impala_common.config.toml_io import load_config
from impala_common.exit_codes import CONFIG, OK, TEMPORARY, UNAVAILABLE, UNUSABLE_DATA
from impala_common.metrics import read_metrics
from impala_common.run_directory import RunDirectory
from impala_server import cli, train_cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ENV = "CartPole-v1"
FOR_EVER = "100000000"
SMALL = ["--port", "0", "--num-actors", "1", "--log-interval-s", "0.2"]
TRAIN = ["--env", ENV, *SMALL]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """Returns a run that impala-train has finished, and what it printed. Do not change it."""
    path = tmp_path_factory.mktemp("finished")
    options = ["--total-steps", "3000", "--eval-episodes", "4", "--run-dir", "run", "--json"]
    with Command(path, "impala-train", *TRAIN, *options) as train:
        assert train.wait() == OK, train.err
        assert "Traceback" not in train.err
        assert "\x1b" not in train.err, "no terminal: plain lines"
        assert "starting the actors" in train.err
        return RunDirectory(path / "run"), train.result()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A learner of CartPole-v1 for actors that are refused."""
    with RunningServer(tmp_path_factory.mktemp("server"), make_config()) as running:
        yield running


def steps_of(run: RunDirectory) -> float:
    return newest_metric(run.path, metrics.STEPS)


def left_in(folder: Path) -> list[str]:
    """Returns what a run left among temporary files, but for torch's own empty cache folder."""
    names = [path.name for path in folder.iterdir()]
    return [name for name in names if not name.startswith("torchinductor_")]


def test_train_with_json_prints_one_line_and_leaves_a_complete_run(
    finished: tuple[RunDirectory, dict[str, Any]],
) -> None:
    run, result = finished

    assert result["run"] == "run"
    assert result["reason"] == "finished"
    assert result["steps"] >= 3000
    assert result["updates"] > 0
    assert result["evaluation"]["num_episodes"] == 4
    lines = read_metrics(run.metrics_path)
    assert lines[-1][metrics.STEPS] == result["steps"]
    assert lines[-1][metrics.UPDATES] == result["updates"]
    assert list(run.tensorboard_path.glob("events.out.tfevents.*"))
    checkpoint = CheckpointStore(run.checkpoints_path).load_newest()
    assert (checkpoint.name, checkpoint.step) == (result["checkpoint"], result["steps"])
    assert json.loads(run.specs_path.read_text())["environment"]["action"]["parts"][0]["sizes"] == [
        2
    ]
    assert (run.log_path / "actor-0.log").exists()
    assert not run.address_path.exists(), "nobody listens there any more"


def test_train_config_of_a_run_can_be_used_again(
    finished: tuple[RunDirectory, dict[str, Any]],
) -> None:
    run, _ = finished

    arguments = parse_train_config("impala-train", ["--config", str(run.config_path)], "")

    assert arguments.config == load_config(run.config_path)
    assert arguments.config.job.total_steps == 3000


def test_train_interrupted_stops_in_order_and_resumes(tmp_path: Path) -> None:
    """On the way, its actor is killed and replaced.

    Seen to fail (the second run began at 0) when --resume does not load the checkpoint.
    """
    run = RunDirectory(tmp_path / "run")
    options = ["--total-steps", FOR_EVER, "--run-dir", "run", "--json"]
    with Command(tmp_path, "impala-train", *TRAIN, *options) as train:
        train.wait_until(lambda: steps_of(run) > 0, "training")
        old = train.children("impala_actor")
        assert len(old) == 1
        old[0].kill()
        new = train.wait_until(
            lambda: [actor for actor in train.children("impala_actor") if actor not in old],
            "new actor",
        )
        before = steps_of(run)
        train.wait_until(lambda: steps_of(run) > before + 2000, "training by the new actor")
        processes = train.children()

        train.interrupt()

        assert train.wait() == OK
        assert len(new) == 1
        assert "replaced" in train.err
        assert "Traceback" not in train.err
        stopped = train.result()
        wait_for_end(processes, 5.0)
    assert stopped["reason"] == "stopping"
    assert "evaluation" not in stopped
    checkpoint = CheckpointStore(run.checkpoints_path).load_newest()
    assert checkpoint.step == stopped["steps"] > 0
    steps_before = [line[metrics.STEPS] for line in read_metrics(run.metrics_path)]

    more = ["--total-steps", str(checkpoint.step + 2000), "--eval-episodes", "0", "--json"]
    with Command(tmp_path, "impala-train", *SMALL, "--resume", "run", *more) as train:
        assert train.wait() == OK, train.err
        resumed = train.result()

    assert resumed["reason"] == "finished"
    assert checkpoint.step + 2000 <= resumed["steps"] < checkpoint.step + 12_000
    assert resumed["updates"] > stopped["updates"]
    steps = [line[metrics.STEPS] for line in read_metrics(run.metrics_path)]
    assert steps[: len(steps_before)] == steps_before
    assert min(steps[len(steps_before) :]) >= checkpoint.step
    saved = CheckpointStore(run.checkpoints_path).load_newest().state["counters"]
    assert saved["learner_life"] == 1


def test_actors_join_a_server_that_starts_after_them_and_leave_at_any_time(tmp_path: Path) -> None:
    port, run = free_port(), RunDirectory(tmp_path / "run")
    actor_options = ["--server", f"127.0.0.1:{port}", "--env", ENV]
    server_options = ["--env", ENV, "--port", str(port), "--run-dir", "run", "--json", "--quiet"]
    server_options += ["--log-interval-s", "0.2", "--total-steps", FOR_EVER]
    with Command(tmp_path, "impala-actor", *actor_options, "--actor-id", "early") as early:
        early.wait_until(lambda: "waiting for the learner at" in early.err, "line that it waits")
        with (
            Command(tmp_path, "impala-server", *server_options) as server,
            Command(tmp_path, "impala-actor", *actor_options) as late,
        ):

            def wait_for_actors(count: int) -> None:
                server.wait_until(
                    lambda: newest_metric(run.path, metrics.ACTORS_CONNECTED) == count,
                    f"{count} actors",
                )

            wait_for_actors(2)
            assert run.address_path.read_text() == f"127.0.0.1:{port}\n"

            late.interrupt(signal.SIGTERM)

            assert late.wait() == OK
            assert "Traceback" not in late.err
            wait_for_actors(1)
            before = steps_of(run)
            server.wait_until(lambda: steps_of(run) > before + 2000, "training by one actor")

            server.interrupt(signal.SIGTERM)

            assert server.wait() == OK
            assert server.result()["reason"] == "stopping"
            assert "Traceback" not in server.err
        early.wait_until(lambda: early.err.count("waiting for the learner") > 1, "that it waits")
        early.interrupt(signal.SIGTERM)
        assert early.wait() == OK
        assert "Traceback" not in early.err
    saved = CheckpointStore(run.checkpoints_path).load_newest()
    assert saved.step == server.result()["steps"]


@pytest.mark.parametrize("name", ["learner", "front_end"])
def test_train_with_killed_process_names_it_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Seen to fail with shared memory that has a name in /dev/shm."""
    temporary, run = tmp_path / "tmp", RunDirectory(tmp_path / "run")
    temporary.mkdir()
    shared_before = set(os.listdir("/dev/shm"))
    options = [*TRAIN, "--total-steps", FOR_EVER, "--run-dir", "run"]
    with Command(tmp_path, "impala-train", *options, TMPDIR=str(temporary)) as train:
        train.wait_until(lambda: steps_of(run) > 0, "training")
        processes = train.children()
        assert len(processes) == 3

        train.children(f"impala_server.{name}")[0].kill()

        assert train.wait() not in (OK, CONFIG)
        assert f"the {name.replace('_', '-')} process died (signal 9)" in train.err
        assert "Traceback" not in train.err
        wait_for_end(processes, 5.0)
    assert left_in(temporary) == []
    assert set(os.listdir("/dev/shm")) <= shared_before
    if name == "front_end":  # the learner has saved what it had
        assert CheckpointStore(run.checkpoints_path).load_newest().step > 0


def test_train_killed_itself_leaves_a_checkpoint_and_no_process(tmp_path: Path) -> None:
    """Seen to fail with a learner that does not watch its pipe, and an actor not its parent."""
    temporary, run = tmp_path / "tmp", RunDirectory(tmp_path / "run")
    temporary.mkdir()
    options = [*TRAIN, "--total-steps", FOR_EVER, "--run-dir", "run"]
    with Command(tmp_path, "impala-train", *options, TMPDIR=str(temporary)) as train:
        train.wait_until(lambda: steps_of(run) > 0, "training")
        processes = train.children()
        assert len(processes) == 3

        train.process.kill()

        wait_for_end(processes, 15.0)
    assert CheckpointStore(run.checkpoints_path).load_newest().step > 0
    assert left_in(temporary) == []
    with run.lock():
        pass  # nobody holds the run any more


def test_actor_without_learner_in_time_ends_with_a_clear_line(tmp_path: Path) -> None:
    port = free_port()
    options = ["--server", f"127.0.0.1:{port}", "--env", ENV, "--connect-timeout-s", "1"]
    with Command(tmp_path, "impala-actor", *options) as actor:
        assert actor.wait() == UNAVAILABLE

    lines = actor.err.splitlines()
    assert f"waiting for the learner at 127.0.0.1:{port}" in lines[0]
    assert lines[-1].startswith(f"error: no learner at 127.0.0.1:{port} within 1 s")


def block_module(path: Path, name: str) -> dict[str, str]:
    """Returns an environment in which package `name` is not installed."""
    shim = path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(f"import sys\nsys.modules[{name!r}] = None\n")
    return {"PYTHONPATH": os.pathsep.join([str(shim), os.environ.get("PYTHONPATH", "")])}


def register_module(path: Path, space: str) -> dict[str, str]:
    """Returns an environment in which module my_env registers Mine-v0 with an action space."""
    (path / "my_env.py").write_text(
        textwrap.dedent(f"""
            import gymnasium
            import numpy as np
            from gymnasium import spaces

            class Mine(gymnasium.Env):
                observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
                action_space = {space}

            gymnasium.register("Mine-v0", entry_point=Mine)
        """)
    )
    return {"PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize(
    "case", ["unknown", "no atari", "no minatar", "space", "module", "another environment"]
)
def test_actor_with_environment_that_cannot_work_says_why(
    tmp_path: Path, server: RunningServer, case: str
) -> None:
    environment: dict[str, str] = {}
    if case == "unknown":
        env, text = "CartPole-v7", "no environment 'CartPole-v7'; close matches: CartPole-v"
    elif case == "no atari":
        env, text = "ALE/Pong-v5", "optional package: pip install 'impala-rl[atari]'"
        environment = block_module(tmp_path, "ale_py")
    elif case == "no minatar":
        env, text = "MinAtar/Breakout-v1", "pip install 'impala-rl[minatar]'"
        environment = block_module(tmp_path, "minatar")
    elif case == "space":
        env, text = "my_env:Mine-v0", "Text"
        environment = register_module(tmp_path, "spaces.Text(5)")
    elif case == "module":
        env, text = "no_such_module:Mine-v0", "module no_such_module cannot be imported"
    else:
        with peer_of(server) as peer:
            peer.register()  # as CartPole: the run is about it from now on
        env, text = "Acrobot-v1", "observation.shape: expected (4,), got (6,)"

    options = ["--server", server.address, "--env", env, "--connect-timeout-s", "20"]
    with Command(tmp_path, "impala-actor", *options, **environment) as actor:
        assert actor.wait() == CONFIG, actor.err

    assert actor.err.splitlines()[-1].startswith("error: ")
    assert text in actor.err.splitlines()[-1]
    assert "Traceback" not in actor.err


def test_train_with_unknown_environment_ends_as_its_actor_does(tmp_path: Path) -> None:
    options = ["--env", "CartPole-v7", *SMALL, "--run-dir", "run"]
    with Command(tmp_path, "impala-train", *options) as train:
        assert train.wait() == CONFIG

    assert train.err.splitlines()[-1].startswith("error: no environment 'CartPole-v7'; close")
    assert "Traceback" not in train.err


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

    with Command(tmp_path, "impala-server", "--resume", "run", "--port", "0", "--quiet") as command:
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


def test_resume_of_a_checkpoint_of_another_network_is_refused(
    tmp_path: Path, finished: tuple[RunDirectory, dict[str, Any]]
) -> None:
    shutil.copytree(finished[0].path, tmp_path / "run")
    options = ["--resume", "run", "--port", "0", "--quiet", "--hidden-sizes", "7", "7"]
    with Command(tmp_path, "impala-server", *options) as command:
        assert command.wait() == UNUSABLE_DATA, command.err

    assert "does not fit this run's network" in command.err
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
        (["--lockstep"], ["--num-actors", "2", "1 with --lockstep", "not determined"]),
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
