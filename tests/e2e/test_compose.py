"""docker-compose.yml with real containers: it trains, survives kills, and leaves a run to resume.

Needs a container engine and the images, and takes minutes, so it is not part of a plain
`make test`: `make compose-smoke` builds the images and sets IMPALA_COMPOSE to the command,
"docker-compose" or "docker compose". Each test has a project, volumes and ports of its own
and removes all of them.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from commands import free_port

from impala_actor.evaluation.run_evaluation import evaluate_run
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("impala-rl-server", "impala-rl-actor", "impala-rl-tensorboard")
FOR_EVER = "--total-steps 100000000"
RUN = "cartpole-v1"
SOLVED = 475.0
COMMAND_S = 180.0
_POLL_S = 0.5


def compose_command() -> list[str]:
    """Returns the command to test; skips where there is none, or no engine, or no images."""
    asked = os.environ.get("IMPALA_COMPOSE", "")
    if not asked:
        pytest.skip("takes minutes and a container engine; run by: make compose-smoke")
    command = ["docker-compose"] if asked == "1" else shlex.split(asked)
    if shutil.which(command[0]) is None or shutil.which("docker") is None:
        pytest.skip(f"{command[0]} or docker is not installed")
    if subprocess.run(["docker", "version"], capture_output=True, timeout=30).returncode != 0:
        pytest.skip("no container engine answers")
    for image in IMAGES:
        inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True)
        if inspected.returncode != 0:
            pytest.skip(f"image {image} is not built; run: make compose-smoke")
    return command


class Project:
    """One set of containers, network and volumes; gone when the context is left."""

    def __init__(self, command: list[str], arguments: str) -> None:
        self.name = f"impalatest{uuid.uuid4().hex[:8]}"
        self._command = [*command, "-p", self.name]
        self._environment = {
            **os.environ,
            "IMPALA_ARGS": f"--log-interval-s 0.5 {arguments}",
            "IMPALA_PORT": str(free_port()),
            "TENSORBOARD_PORT": str(free_port()),
        }

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(self.logs())
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")

    def compose(self, *arguments: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a compose command."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        assert done.returncode == 0 or not is_checked, done.stderr[-3000:]
        return done

    def up(self, num_actors: int = 3) -> None:
        """Starts everything; returns once the learner is healthy and actors are started."""
        self.compose("up", "-d", "--no-build", "--scale", f"actor={num_actors}")

    def containers(self, service: str) -> list[str]:
        """Returns the ids of a service's containers, ended ones too."""
        labels = {"project": self.name, "service": service, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{key}={labels[key]}" for key in labels]
        return docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()

    def learner(self) -> str:
        """Returns the learner's container."""
        (container,) = self.containers("learner")
        return container

    def metric(self, name: str) -> float:
        """Returns a number of the newest line of metrics.jsonl, -1 while there is none."""
        path = f"/runs/{RUN}/metrics.jsonl"
        line = docker("exec", self.learner(), "tail", "-n", "1", path, is_checked=False)
        try:
            return float(json.loads(line).get(name, -1))
        except json.JSONDecodeError:
            return -1.0

    def wait_until(self, is_so: Callable[[], Any], what: str, timeout_s: float = 120.0) -> None:
        """Polls; containers give no other sign."""
        deadline_s = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < deadline_s, f"no {what} in {timeout_s:g} s"
            threading.Event().wait(_POLL_S)

    def wait_for_steps(self, steps: float) -> None:
        self.wait_until(lambda: self.metric(metrics.STEPS) > steps, f"step {steps:g}")

    def wait_for_actors(self, count: int) -> None:
        self.wait_until(
            lambda: self.metric(metrics.ACTORS_CONNECTED) == count, f"{count} actors connected"
        )

    def logs(self) -> str:
        """Returns the ends of what all containers said."""
        return self.compose("logs", "--tail", "30", is_checked=False).stdout[-8000:]

    def copy_run(self, target: Path) -> RunDirectory:
        """Returns a copy of the run in the volume, whether or not anything runs."""
        volume = f"{self.name}_runs:/runs:ro"
        command = ["docker", "run", "--rm", "--network=none", "--volume", volume]
        command += ["--entrypoint=tar", "impala-rl-server", "-C", "/runs", "-c", RUN]
        done = subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=True)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(target, filter="data")
        return RunDirectory(target / RUN)


def docker(*arguments: str, is_checked: bool = True) -> str:
    """Runs a docker command and returns what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0 or not is_checked, done.stderr
    return done.stdout


def state_of(container: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(docker("inspect", "--format={{json .State}}", container))
    return state


def restarts_of(container: str) -> int:
    return int(docker("inspect", "--format={{.RestartCount}}", container))


def crash(container: str) -> None:
    """Kills the command, not the container: the engine starts only what ended by itself again."""
    code = "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"
    docker("exec", container, "python", "-c", code, is_checked=False)  # it may die with it


@pytest.fixture
def command() -> list[str]:
    return compose_command()


def test_compose_up_with_three_actors_trains_cartpole_to_solved(
    command: list[str], tmp_path: Path
) -> None:
    with Project(command, "--total-steps 200000") as project:
        project.up(num_actors=3)
        learner = project.learner()
        project.wait_for_actors(3)

        project.wait_until(lambda: not state_of(learner)["Running"], "end of the run", 300.0)

        assert state_of(learner)["ExitCode"] == 0
        for actor in project.containers("actor"):
            project.wait_until(lambda actor=actor: not state_of(actor)["Running"], "actor's end")
            assert state_of(actor)["ExitCode"] == 0
        run = project.copy_run(tmp_path)
    result = evaluate_run(run.path, num_episodes=100, num_slots=10, seed=1000)
    assert result.evaluation.return_mean >= SOLVED


def test_compose_goes_on_after_kills_and_down_leaves_a_run_that_up_goes_on_with(
    command: list[str], tmp_path: Path
) -> None:
    with Project(command, FOR_EVER) as project:
        project.up(num_actors=3)
        project.wait_for_actors(3)
        learner, actors = project.learner(), project.containers("actor")

        docker("kill", actors[0])
        project.wait_for_actors(2)
        project.wait_for_steps(project.metric(metrics.STEPS) + 2000)
        docker("start", actors[0])
        project.wait_for_actors(3)

        docker("kill", learner)
        assert not state_of(learner)["Running"]
        docker("start", learner)
        project.wait_for_actors(3)
        assert [state_of(actor)["Running"] for actor in actors] == [True] * 3

        crash(learner)
        project.wait_until(lambda: restarts_of(learner) == 1, "restart by the engine")
        project.wait_for_actors(3)
        before = project.metric(metrics.STEPS)
        project.wait_for_steps(before + 2000)

        start_s = time.monotonic()
        project.compose("down")
        assert time.monotonic() - start_s < 45.0
        assert not project.containers("learner")
        left = project.copy_run(tmp_path / "left")
        saved = CheckpointStore(left.checkpoints_path).load_newest()
        assert saved.step > before + 2000, "SIGTERM ends with a checkpoint of the last step"
        assert metrics.read_metrics(left.metrics_path)[-1][metrics.STEPS] == saved.step

        project.up(num_actors=1)
        project.wait_for_steps(saved.step)
        lives = project.copy_run(tmp_path / "again")
        steps = [line[metrics.STEPS] for line in metrics.read_metrics(lives.metrics_path)]
        assert steps == sorted(steps)


def test_compose_lets_nobody_in_without_a_token_and_confines_everyone(command: list[str]) -> None:
    with Project(command, FOR_EVER) as project:
        project.up(num_actors=1)
        learner, (actor,) = project.learner(), project.containers("actor")
        project.wait_for_actors(1)

        options = ["--server=learner:50051", "--env=CartPole-v1", "--connect-timeout-s=10"]
        for more, text in (
            (["--ca-file=/secrets/ca.crt"], "token"),
            ([], "TLS"),
        ):
            refused = project.compose(
                "run", "--rm", "--no-deps", "actor", *options, *more, is_checked=False
            )
            assert refused.returncode not in (0, 1), refused.stderr
            assert text in refused.stdout + refused.stderr

        for container in (learner, actor):
            code = "import os; print(os.getuid(), os.getgid(), open('/proc/self/status').read())"
            status = docker("exec", container, "python", "-c", code)
            assert status.startswith("10001 10001")
            assert "CapEff:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status
            assert (
                "read-only"
                in subprocess.run(
                    ["docker", "exec", container, "sh", "-c", "echo x > /opt/x || echo x > /x"],
                    capture_output=True,
                    text=True,
                    timeout=30,
                ).stderr.lower()
            )
        assert docker("exec", actor, "ls", "/secrets").split() == ["actor.token", "ca.crt"]
        code = """
            import importlib.util, torch
            assert importlib.util.find_spec("impala_server") is None, "server code in the image"
            assert torch.version.cuda is None, "CUDA in the image"
        """
        docker("exec", actor, "python", "-c", "\n".join(map(str.strip, code.splitlines())))
        for port in docker("port", learner).splitlines():
            assert " 127.0.0.1:" in port
