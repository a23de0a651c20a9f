"""A thin actor makes what an ordinary actor makes of an id, whichever package registers it.

Seen to fail with: ids left to Gymnasium alone, which knows MiniGrid's and MinAtar's only after their
packages were asked to register them.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

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
        ("MinAtar/Seaquest-v1", "minatar"),
        ("MiniGrid-Empty-5x5-v0", "minigrid"),
        ("BabyAI-GoToRedBallGrey-v0", "minigrid"),
    ],
)
def test_thin_actor_knows_an_id_without_help(env: str, package: str) -> None:
    pytest.importorskip(package)
    # A process of its own: an id that was registered once stays so.
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, env], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
