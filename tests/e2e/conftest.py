"""A finished run that several test files read."""

from __future__ import annotations

from typing import Any

import pytest
from commands import TRAIN, Command

from impala_common.process.exit_codes import OK
from impala_common.run.run_directory import RunDirectory


@pytest.fixture(scope="session")
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
