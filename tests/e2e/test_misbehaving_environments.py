"""Environments that print, take signals, fail to close or leave processes cost no result."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import FOR_EVER, SMALL, Command, steps_of

from impala_common.process.exit_codes import OK
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

_MODULE = """
import atexit, os, signal, subprocess, sys, tempfile, threading
import gymnasium as gym
import numpy as np


class Bad(gym.Env):
    def __init__(self):
        self.observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(4)
        atexit.register(print, "simulator closed")
        os.chdir(tempfile.mkdtemp())
        # A thread and a process that outlive the environment; the process keeps its descriptors.
        threading.Thread(target=threading.Event().wait).start()
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(200)"], close_fds=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *unused: None)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {"action_mask": np.array([1, 0, 1, 0], np.int8)}

    def step(self, action):
        print("step", action)
        os.write(1, b"native line\\n")
        assert action in (0, 2), "illegal action"
        self.t += 1
        info = {"winner": None if self.t % 2 else 1, "action_mask": np.array([1, 0, 1, 0], np.int8)}
        return np.zeros(2, np.float32), np.array([float(action == 2)]), False, self.t == 8, info

    def close(self):
        raise RuntimeError("cannot close")


gym.register("Bad-v0", entry_point=Bad)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bad_environment.py").write_text(_MODULE)
    return tmp_path


def test_train_on_a_misbehaving_environment_ends_with_its_result(folder: Path) -> None:
    """Planted, one at a time: close() passed on; results printed to the environment's stdout;
    infos joined; the mask left out; impala-eval that waits for threads; pipes read to their ends.
    """
    options = ["--env", "bad_environment:Bad-v0", "--run-dir", "run", *SMALL]
    options += ["--total-steps", "3000", "--eval-episodes", "8", "--json"]

    with Command(folder, "impala-train", *options) as train:
        assert train.wait(150) == OK, train.err
        result = train.result()

    assert result["reason"] == "finished"
    assert result["evaluation"]["num_episodes"] == 8
    assert 0 <= result["evaluation"]["return_min"] <= result["evaluation"]["return_max"] <= 8


def test_actor_of_an_environment_that_takes_signals_still_leaves(folder: Path) -> None:
    """Planted: handlers not guarded. The actor is then killed after six seconds."""
    options = ["--env", "bad_environment:Bad-v0", "--run-dir", "run", *SMALL]

    with Command(folder, "impala-train", *options, "--total-steps", FOR_EVER) as train:
        run = RunDirectory(folder / "run")
        train.wait_until(lambda: steps_of(run) > 0, "steps", 100)
        train.interrupt()
        assert train.wait(60) == OK, train.err

        assert "is killed" not in train.err
