"""The command impala-actor: waits, joins, leaves, and reports unusable environments."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ENV, FOR_EVER, SMALL, Command, free_port, newest_metric, steps_of
from raw_peer import peer_of
from running_server import RunningServer, make_config

from impala_common.process.exit_codes import CONFIG, OK, UNAVAILABLE
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A learner of CartPole-v1 for actors that are refused."""
    with RunningServer(tmp_path_factory.mktemp("server"), make_config()) as running:
        yield running


@pytest.mark.parametrize("name", ["impala-actor", "impala-evaluator"])
def test_mistyped_environment_is_named_before_the_learner_is_waited_for(
    tmp_path: Path, name: str
) -> None:
    """Before: without a learner it waited for ever."""
    options = ["--server", f"127.0.0.1:{free_port()}", "--env", "CartPol-v1"]
    with Command(tmp_path, name, *options) as command:
        assert command.wait() == CONFIG
        assert command.err.startswith("error: no environment 'CartPol-v1'")
        assert "CartPole-v1" in command.err


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
        env, text = "ALE/Pong-v5", "(extra impala-rl[atari])"
        environment = block_module(tmp_path, "ale_py")
    elif case == "no minatar":
        env, text = "MinAtar/Breakout-v1", "(extra impala-rl[minatar])"
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
