"""A run whose total_steps an administrator set: its end is that one, for every command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from impala_actor.report.run_summary import summarise_run
from impala_common.config import JobConfig, TrainConfig
from impala_common.config.toml_io import dump_config
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server.messages import LearnerStatus
from impala_server.progress import ProgressDisplay
from impala_server.start_checks import describe_finished, find_finished

CONFIGURED = 1_000


def make_run(path: Path, steps: int, set_to: int) -> TrainConfig:
    """Writes a run of CONFIGURED steps that has trained `steps`; returns its settings."""
    run = RunDirectory(path)
    run.create()
    config = TrainConfig(job=JobConfig(total_steps=CONFIGURED))
    run.config_path.write_text(dump_config(config))
    run.metrics_path.write_text(f'{{"{metrics.STEPS}": {steps}, "{metrics.UPDATES}": 3}}\n')
    entry = {"total_steps": {"value": set_to, "configured": CONFIGURED}}
    state = {"counters": {"trained_steps": steps}, "parameters": entry}
    CheckpointStore(run.checkpoints_path).save(steps, {"weights": {"w": np.zeros(2)}}, state)
    return config


def with_end(config: TrainConfig, total_steps: int) -> TrainConfig:
    return dataclasses.replace(config, job=JobConfig(total_steps=total_steps))


def test_end_that_was_moved_on_is_not_reached_at_the_configured_one(tmp_path: Path) -> None:
    """Seen to fail with the configured end: such a run could not be resumed."""
    config = make_run(tmp_path, steps=1_500, set_to=2_000)

    assert find_finished(config, tmp_path) is None
    summary = summarise_run(tmp_path)
    assert (summary.state, summary.total_steps) == ("stopped", 2_000)


def test_end_that_was_drawn_near_is_reached_there(tmp_path: Path) -> None:
    """Seen to fail with the configured end: each resume started everything again."""
    config = make_run(tmp_path, steps=510, set_to=500)

    finished = find_finished(config, tmp_path)
    assert finished is not None
    text = describe_finished(tmp_path, finished)
    assert "510 of 500 steps" in text
    assert "N more than 510 and not 1000," in text
    summary = summarise_run(tmp_path)
    assert (summary.state, summary.total_steps) == ("finished", 500)


@pytest.mark.parametrize(("asked", "is_finished"), [(1_400, True), (1_600, False)])
def test_end_on_the_command_line_holds_in_place_of_the_one_that_was_set(
    tmp_path: Path, asked: int, is_finished: bool
) -> None:
    config = make_run(tmp_path, steps=1_500, set_to=2_000)

    finished = find_finished(with_end(config, asked), tmp_path)
    assert (finished is not None) is is_finished


def test_display_shows_the_end_of_the_newest_status() -> None:
    """Seen to fail with the end that the display was made with."""
    display = ProgressDisplay(CONFIGURED, "run", Console(quiet=True))
    status = LearnerStatus(state="RUNNING", metrics={metrics.STEPS: 250.0})

    display.update(status)
    assert "steps 250 (25 %)" in display.line()
    display.update(dataclasses.replace(status, total_steps=500))
    assert "steps 250 (50 %)" in display.line()
