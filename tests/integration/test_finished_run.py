"""Actors of a finished run end by themselves, whenever they start."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_server import TINY, RunningActor, RunningServer, make_config

from impala_actor.acting.actor_config import ActorConfig
from impala_actor.evaluation.evaluator_config import EvaluatorConfig
from impala_common.config.toml_io import load_config
from impala_common.process.exit_codes import OK
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server import cli, train_cli
from impala_server.finished_notice import give_notice

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def finished(tmp_path: Path) -> RunDirectory:
    with RunningServer(tmp_path / "run", make_config(job={"total_steps": 400})) as server:
        server.run_actor(TINY + "Counting-v0")
        server.wait_finished()
    return RunDirectory(tmp_path / "run")


def test_actor_and_evaluator_that_come_after_the_end_hear_of_it_and_leave(
    finished: RunDirectory,
) -> None:
    """Seen to fail: "the run has finished" was UNAVAILABLE, so that they waited for ever."""
    is_enough = threading.Event()
    config = load_config(finished.config_path)
    with finished.lock():
        notice = threading.Thread(
            target=give_notice, args=(config, finished, 60.0, is_enough.is_set)
        )
        notice.start()
        try:
            address = wait_for_address(finished)
            with grpc.insecure_channel(address) as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=10.0
                )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            env = TINY + "Counting-v0"
            clients = [
                RunningActor(ActorConfig(server=address, env=env, actor_id="late")),
                RunningActor(EvaluatorConfig(server=address, env=env, evaluator_id="judge")),
            ]
            for client in clients:
                client.join(30.0)
                assert client.error is None
        finally:
            is_enough.set()
            notice.join(20.0)
    assert not notice.is_alive()
    assert not finished.address_path.exists()


def wait_for_address(run: RunDirectory, timeout_s: float = 20.0) -> str:
    waiting = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if run.address_path.exists():
            return run.address_path.read_text().strip()
        waiting.wait(0.05)
    raise AssertionError("no address")


@pytest.mark.parametrize("main", [train_cli.run, cli.run])
def test_resume_of_a_finished_run_says_so_and_starts_nothing(
    finished: RunDirectory,
    main: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Seen to fail: learner and actors were started, and the result was evaluated again."""
    monkeypatch.setattr("subprocess.Popen", lambda *unused, **unused_too: pytest.fail("started"))
    before = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    options = ["--resume", str(finished.path), "--json", "--env", TINY + "Counting-v0"]
    config = load_config(finished.config_path)
    if not config.environment.env:
        options = options[:-2]
    if main is train_cli.run and not config.environment.env:
        monkeypatch.setattr(train_cli, "validate_local_run", lambda unused: None)

    assert callable(main)
    assert main(options) == OK

    captured = capsys.readouterr()
    assert "has finished" in captured.err
    assert "--total-steps" in captured.err
    assert '"reason": "finished"' in captured.out
    assert {
        path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()
    } == before
    assert CheckpointStore(finished.checkpoints_path).names()
