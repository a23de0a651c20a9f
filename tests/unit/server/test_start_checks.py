"""Checks of impala-train and impala-server before they make or start anything."""

from __future__ import annotations

import time
from pathlib import Path

import gymnasium
import pytest

from impala_common.config import EnvironmentConfig
from impala_common.errors import ImpalaError
from impala_common.process import cuda_probe, exit_codes
from impala_common.process.own_modules import find_class_problem
from impala_server import cli, start_checks, train_cli
from impala_server.local.environment_check import require_environment

OWN = """
import sys, gymnasium, numpy
class Env(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return numpy.zeros(3, numpy.float32), {}
    def step(self, action):
        return numpy.zeros(3, numpy.float32), 1.0, False, False, {}
class NeedsMode(Env):
    def __init__(self, render_mode):
        pass
class NoActions(Env):
    action_space = None
class Raises(Env):
    def __init__(self):
        print("on stdout")
        raise RuntimeError("no window\\nsecond line")
class Hangs(Env):
    def __init__(self):
        import threading
        threading.Event().wait()
class Dies(Env):
    def __init__(self):
        import os
        os._exit(3)
class NoOptions(Env):
    def reset(self, seed=None):
        return numpy.zeros(3, numpy.float32), {}
class NoReward(Env):
    def step(self, action):
        return numpy.zeros(3, numpy.float32), None, False, False, {}
class FourValues(Env):
    def step(self, action):
        return numpy.zeros(3, numpy.float32), 1.0, False, {}
class WrongShape(Env):
    def reset(self, *, seed=None, options=None):
        return numpy.zeros(4, numpy.float32), {}
class RaisesInStep(Env):
    def step(self, action):
        raise RuntimeError("the licence server is away")
class OneLegal(Env):
    def reset(self, *, seed=None, options=None):
        return numpy.zeros(3, numpy.float32), {"action_mask": numpy.array([0, 1], numpy.int8)}
    def step(self, action):
        assert action == 1
        return numpy.zeros(3, numpy.float32), {"action": 1}, False, False, {}
for kind in Env.__subclasses__() + [Env]:
    gymnasium.register(kind.__name__ + "-v0", entry_point=kind)
"""

NETS = """
import json as codec
from torch import nn
class Net: pass
class Good(nn.Module): pass
def make(): return Good()
Other = Good
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; a module with environments is elsewhere on Python's path."""
    modules, here = tmp_path / "modules", tmp_path / "here"
    modules.mkdir()
    here.mkdir()
    (modules / "start_check_envs.py").write_text(OWN)
    (modules / "start_check_nets.py").write_text(NETS)
    (modules / "start_check_broken.py").write_text("def f(:\n")
    (modules / "start_check_exits.py").write_text("raise SystemExit('no display')\n")
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.chdir(here)
    return here


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> str:
    """Returns the one line that impala-train refuses these options with; nothing is left behind."""
    before = sorted(folder.rglob("*"))

    assert train_cli.run(options) == exit_codes.CONFIG

    lines = [line for line in capsys.readouterr().err.splitlines() if "slots each" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert sorted(folder.rglob("*")) == before, "a refused command leaves nothing behind"
    return lines[0]


@pytest.mark.parametrize(
    ("env", "parts"),
    [
        ("CartPole-v9", ["CartPole-v9", "CartPole-v1"]),
        ("Pong-v5", ["ALE/Pong-v5"]),
        ("MinAtar/Breakot-v1", ["MinAtar/Breakout-v1"]),
        ("nowhere:Env-v0", ["nowhere", "cannot be imported"]),
        ("start_check_envs:NeedsMode-v0", ["render_mode", "--env-kwargs"]),
        ("start_check_envs:NoActions-v0", ["action_space is None"]),
        ("start_check_envs:Raises-v0", ["RuntimeError: no window second line"]),
        ("start_check_broken:Env-v0", ["start_check_broken cannot be imported: SyntaxError"]),
        ("start_check_exits:Env-v0", ["cannot be imported: SystemExit: no display"]),
        ("../x:Env-v0", ["'../x' is no name of a module"]),
        (":CartPole-v1", ["'' is no name of a module"]),
        ("start_check_envs:NoOptions-v0", ["takes no options", "options=None"]),
        ("start_check_envs:NoReward-v0", ["reward of the environment", "got NoneType None"]),
        ("start_check_envs:FourValues-v0", ["step returned 4 values"]),
        ("start_check_envs:WrongShape-v0", ["observation.shape of the environment", "(4,)"]),
        ("start_check_envs:OneLegal-v0", ["reward of the environment", "got dict {'action': 1}"]),
    ],
)
def test_train_refuses_an_environment_that_cannot_be_made(
    folder: Path, capsys: pytest.CaptureFixture[str], env: str, parts: list[str]
) -> None:
    """Seen to fail after 15 s, with learner and actors started and an empty run left behind.

    Planted for those that cannot be used: no step is played.
    """
    line = refused(capsys, folder, "--env", env)

    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--device", "cuda"], ["--device is 'cuda'", "no CUDA device"]),
        (["--device", "cuda:99"], ["--device is 'cuda:99'"]),
        (["--model", "nonet"], ["--model", "impala_resnet", "module:Class"]),
        (["--model", "start_check_nets:Nett"], ["no Nett; there are: Good, Net"]),
        (["--model", "no_nets:Net"], ["no no_nets"]),
        (["--model", "start_check_nets:Net"], ["Net in start_check_nets.py derives from no class"]),
        (["--model", "start_check_nets:make"], ["is a function"]),
        (["--model", "start_check_nets:codec"], ["is a module"]),
        (["--model", "os:path"], ["os.path is no class"]),
        (["--wandb-project", "x"], ["--wandb-project", "pip install 'wandb"]),
        (["--run-dir", "/proc/no/run"], ["run folder is '/proc/no/run'"]),
        (["--init-model-path", "none/step-1"], ["--init-model-path", "there is none"]),
        (
            ["--init-model-path", "../modules"],
            ["--init-model-path", "manifest.json cannot be read"],
        ),
        (["--specs-file", "bom.toml"], ["--specs-file", "specs.json"]),
        (["--specs-file", "none.json"], ["--specs-file", "No such file"]),
        (["--actor-token-file", "none.token"], ["--actor-token-file", "readable file"]),
        (["--admin-token-file", "bom.toml"], ["--admin-token-file", "only its owner can read"]),
        (["--tls-cert", "a.crt", "--tls-key", "a.key"], ["--tls-cert is 'a.crt'"]),
        (["--envs-per-actor", "100000"], ["--envs-per-actor", "at most 1024"]),
        (["--config", "bom.toml"], ["bom.toml", "byte order mark"]),
    ],
)
def test_train_refuses_settings_that_cannot_work_here(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    parts: list[str],
) -> None:
    """The fault: the learner as the first to look."""
    builds = {"cuda": True, "hip": False}
    monkeypatch.setattr(cuda_probe, "_read_torch_builds", lambda: builds)
    monkeypatch.setattr(cuda_probe, "_count_devices", lambda: 1 if "cuda:99" in options else 0)
    monkeypatch.setattr(start_checks, "is_installed", lambda module: module != "wandb")
    (folder / "bom.toml").write_bytes(b"\xef\xbb\xbf[job]\nseed = 3\n")

    line = refused(capsys, folder, "--env", "CartPole-v1", *options)

    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", ["Hangs", "Dies", "RaisesInStep", "Env"])
def test_environment_that_cannot_be_judged_in_time_is_let_through(folder: Path, name: str) -> None:
    require_environment(EnvironmentConfig(env=f"start_check_envs:{name}-v0"), timeout_s=6.0)


def test_environment_that_comes_with_gymnasium_needs_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *unused, **unused_too: pytest.fail("started"))

    require_environment(EnvironmentConfig(env="CartPole-v1"))
    with pytest.raises(pytest.fail.Exception, match="started"):
        require_environment(EnvironmentConfig(env="start_check_envs:Env-v0"))

    assert "CartPole-v1" in gymnasium.registry


def test_cuda_is_judged_by_what_torch_was_built_for() -> None:
    builds = cuda_probe._read_torch_builds()

    import torch

    assert builds is not None
    assert builds["cuda"] == (torch.version.cuda is not None)
    if cuda_probe._count_devices() == 0:
        with pytest.raises(ImpalaError, match="--device is 'cuda'"):
            cuda_probe.require_device("--device", "cuda")


def test_two_runs_of_the_same_second_have_two_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: the second was refused, as the first was at work in the folder."""
    monkeypatch.setattr(time, "strftime", lambda unused: "20260101-000000")
    arguments = cli.parse_train_config("x", ["--env", "CartPole-v1"], "")

    runs = [cli.open_run(arguments) for _ in range(3)]

    assert len({run.path for run, _ in runs}) == 3
    for _, lock in runs:
        lock.close()


@pytest.mark.parametrize("name", ["Good", "Other", "nn.Module", "nn"])
def test_class_that_may_be_a_network_is_let_through(folder: Path, name: str) -> None:
    assert find_class_problem("start_check_nets", name) == ""
