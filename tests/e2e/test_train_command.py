"""The command impala-train: real processes, signals, exit codes, and no process left over.

"Seen to fail" in a docstring names a fault that was put into the code to see the test fail.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from commands import FOR_EVER, SMALL, TRAIN, Command, steps_of, wait_for_end

from impala_common.config.cli import parse_train_config
from impala_common.config.toml_io import load_config
from impala_common.process.exit_codes import CONFIG, OK
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.metrics import read_metrics
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


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
    assert json.loads(run.evaluation_path.read_text()) == result["evaluation"]
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


@pytest.mark.parametrize("name", [pytest.param("learner", marks=pytest.mark.extended), "front_end"])
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
