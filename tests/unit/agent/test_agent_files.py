"""save() over an earlier save leaves the old checkpoint or the new one, whatever comes between."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_agent.agent_files import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("num_done", [0, 1])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_save_that_is_broken_off_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], num_done: int
) -> None:
    """Seen to fail: broken off between two renames, the old checkpoint and the new were removed."""
    path = tmp_path / "saved"
    save_checkpoint(path, 1, {"weights": {"w": np.ones(2, np.float32)}}, {})
    rename, done = os.rename, []

    def break_off(source: Any, target: Any) -> None:
        moves_here = {Path(source), Path(target)} & {path}
        if moves_here and len(done) == num_done:
            monkeypatch.undo()
            raise error
        rename(source, target)
        done.extend(moves_here)

    monkeypatch.setattr(os, "rename", break_off)
    with pytest.raises(BaseException):  # noqa: B017, PT011 (KeyboardInterrupt, or its own for OSError)
        save_checkpoint(path, 2, {"weights": {"w": np.zeros(2, np.float32)}}, {})

    assert load_checkpoint(path).step == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]


def test_save_replaces_an_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    for step in (1, 2):
        save_checkpoint(path, step, {"weights": {"w": np.ones(2, np.float32)}}, {})

    assert load_checkpoint(path).step == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]
