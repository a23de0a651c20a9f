"""Kills a process inside the save of a checkpoint, 500 times (docs/faults.md, 3)."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from faults.row_figures import amount, record

from impala_common.run.checkpoints import CheckpointStore

pytestmark = pytest.mark.timeout(560)

_NUM_FLOATS = 250_000
_LONGEST_S = 0.03


def save_for_ever(path: Path, step: int) -> None:
    """Saves checkpoints of a megabyte whose numbers are their step."""
    store = CheckpointStore(path, keep=2)
    while True:
        step += 1
        tensors = {"weights": {"w": np.full(_NUM_FLOATS, step, np.float32)}}
        store.save(step, tensors, {"step": step})


def kill_inside_a_save(path: Path, step: int, source: random.Random) -> bool:
    """Starts a process that saves from `step` on and kills it; returns whether it was saving."""
    before = _unfinished(path)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            save_for_ever(path, step)
        os._exit(1)
    time.sleep(source.uniform(0, _LONGEST_S))  # the time of the kill is what is varied
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it ended by itself"
    return bool(_unfinished(path) - before)


def _unfinished(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if entry.name.startswith(".")}


def test_checkpoint_is_loadable_after_each_kill_inside_a_save(tmp_path: Path) -> None:
    """Seen to fail with files written straight into the checkpoint's own folder."""
    source = random.Random(3)
    store = CheckpointStore(tmp_path, keep=2)
    store.save(1, {"weights": {"w": np.ones(_NUM_FLOATS, np.float32)}}, {"step": 1})
    step, wanted, inside, num_kills = 1, amount(10, 500), 0, 0
    while inside < wanted:
        inside += kill_inside_a_save(tmp_path, step, source)
        num_kills += 1
        newest = store.load_newest()
        assert newest.step >= step, "it went back"
        assert np.all(newest.tensors["weights"]["w"] == newest.step)
        step = newest.step
        assert num_kills < 20 * wanted, "no kill meets a save"
    record(3, kills_in_a_save=inside, loadable=inside, kills_in_all=num_kills)
