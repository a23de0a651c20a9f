"""A thin actor makes what an ordinary actor makes of an id, whichever package registers it.

Seen to fail with: ids left to Gymnasium alone, which knows MiniGrid's and MinAtar's only after
their packages were asked to register them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)  # a process each, that imports the environment

_CHECK = """
import sys
from impala_actor.environments.factory import make_environment
from impala_common.codec.specs import pack_environment_spec
from impala_common.config import EnvironmentConfig
from impala_thin import Environment
from impala_thin.gymnasium_driver import make_vector

env = sys.argv[1]
thin = make_vector(env, 2, {})
thin.reset(seed=1)
spaces = thin.single_observation_space, thin.single_action_space
ours = Environment.from_spaces(*spaces).spec
theirs = make_environment(env, 2, EnvironmentConfig(env=env)).spec
assert ours == pack_environment_spec(theirs), (ours, theirs)
"""


@pytest.mark.parametrize(
    ("env", "package"),
    [
        ("CartPole-v1", "gymnasium"),
        ("MinAtar/Breakout-v0", "minatar"),
        pytest.param("MinAtar/Seaquest-v1", "minatar", marks=pytest.mark.extended),
        ("MiniGrid-Empty-5x5-v0", "minigrid"),
        ("BabyAI-GoToRedBallGrey-v0", "minigrid"),
    ],
)
def test_thin_actor_knows_an_id_without_help(env: str, package: str) -> None:
    pytest.importorskip(package)
    # A process of its own: an id that was registered once stays so.
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, env],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


_OWN = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

gymnasium.register("MyCart-v0", entry_point=CartPoleEnv)


def wrapped(env):
    print("wrapped")
    return env


NUMBER = 1
"""
_HERE = ("-P", "-X", "impala_own_modules")  # as impala-train starts thin actors


@pytest.mark.parametrize(
    ("python_options", "env", "wrapper", "code", "expected"),
    [
        (_HERE, "my_own:MyCart-v0", "my_own:wrapped", 69, "wrapped"),
        ((), "my_own:MyCart-v0", "my_own:wrapped", 69, "wrapped"),
        (("-P",), "my_own:MyCart-v0", "my_own:wrapped", 78, "No module named 'my_own'"),
        (_HERE, "my_own:MyCart-v0", "my_own:missing", 78, "must be module:Wrapper"),
        (_HERE, "my_own:MyCart-v0", "nowhere:missing", 78, "must be module:Wrapper"),
        (_HERE, "my_own:MyCart-v0", "my_own:NUMBER", 78, "no class or function"),
    ],
)
def test_modules_of_the_working_directory_are_found(
    tmp_path: Path,
    python_options: tuple[str, ...],
    env: str,
    wrapper: str,
    code: int,
    expected: str,
) -> None:
    (tmp_path / "my_own.py").write_text(_OWN)
    options = ["--server", "127.0.0.1:1", "--connect-timeout-s", "0.2", "--env", env]
    done = subprocess.run(
        [sys.executable, *python_options, "-m", "impala_thin", *options, "--env-wrapper", wrapper],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert expected in done.stdout + done.stderr
