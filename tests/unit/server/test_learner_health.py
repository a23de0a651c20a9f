"""LearnerHealth: pause or end after failed updates, by the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from impala_common.config.sections import OptimizerConfig
from impala_common.errors import (
    CheckpointWriteError,
    IllegalTransitionError,
    ImpalaError,
    TrainingDivergedError,
)
from impala_common.process.exit_codes import INTERNAL
from impala_server import cli
from impala_server.learner.learner_health import LearnerHealth


@pytest.mark.parametrize("setting", ["auto", "end"])
def test_give_up_ends_unless_it_is_to_pause(setting: Any) -> None:
    with pytest.raises(TrainingDivergedError):
        LearnerHealth().give_up(TrainingDivergedError("x"), OptimizerConfig(when_diverged=setting))


def test_give_up_that_pauses_says_why_and_what_to_do() -> None:
    health = LearnerHealth()

    health.give_up(TrainingDivergedError("it is hot"), OptimizerConfig(when_diverged="pause"))

    assert health.trouble.startswith("it is hot. The learner is PAUSED.")
    for word in ("set", "rollback", "resume"):
        assert f"impala-admin {word}" in health.trouble
    health.recover()
    assert health.trouble == ""


def test_damaged_weights_are_neither_saved_nor_gone_on_with() -> None:
    health = LearnerHealth()
    health.require_sound_weights()
    health.require_usable_weights()

    health.damage = "half a step"

    with pytest.raises(CheckpointWriteError, match="half a step"):
        health.require_sound_weights()
    with pytest.raises(IllegalTransitionError, match="rollback"):
        health.require_usable_weights()


@pytest.mark.parametrize(
    ("options", "expected"), [([], "pause"), (["--when-diverged", "end"], "end")]
)
def test_server_by_itself_pauses_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: str
) -> None:
    """Seen to fail without the command's own default: auto is the end for whoever waits."""
    seen = []

    def refuse(config: Any, *unused: Any, **unused_too: Any) -> None:
        seen.append(config.optimizer.when_diverged)
        raise ImpalaError("enough")

    monkeypatch.setattr(cli, "Supervisor", refuse)
    code = cli.run(["--run-dir", str(tmp_path / "run"), "--port", "0", *options])

    assert code == INTERNAL
    assert seen == [expected]
