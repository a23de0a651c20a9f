"""IMPALA.load makes an agent of a run, a checkpoint or an exported policy, without anything else.

Written to find: settings of the class's defaults in place of the run's, a user-supplied network
imported because the file names it.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from own_networks import Remembering
from seed_agents import SMALL, Trained, are_equal, make_agent, make_scaled, weights_of

from impala_actor.eval_cli import main
from impala_common.errors import CheckpointError, ConfigError, IllegalTransitionError
from impala_rl import IMPALA, load_policy

pytestmark = pytest.mark.timeout(180)
OBSERVATIONS = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)


def test_run_is_loaded_with_its_settings_and_goes_on(trained: Trained) -> None:
    agent = IMPALA.load(trained.run.path, eval_env=make_scaled, quiet=True)

    assert agent.config.rollout == trained.agent.config.rollout
    assert agent.config.model == trained.agent.config.model
    assert agent.run_dir == trained.run.path
    assert agent.global_step == trained.agent.global_step
    assert are_equal(weights_of(agent), weights_of(trained.agent))
    for one in (False, True):
        np.testing.assert_array_equal(
            agent.predict(OBSERVATIONS, deterministic=True)[0],
            load_policy(trained.run.path).predict(OBSERVATIONS)[0],
        )
        agent.mode(one)


def test_run_that_was_named_relatively_is_known_from_another_folder(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: FileNotFoundError in `save` after os.chdir."""
    monkeypatch.chdir(trained.run.path.parent)
    agent = IMPALA.load(trained.run.path.name, quiet=True)
    monkeypatch.chdir(tmp_path)

    assert agent.run_dir == trained.run.path
    agent.save(tmp_path / "saved")


def test_checkpoint_is_loaded_into_a_folder_of_its_own(trained: Trained, tmp_path: Path) -> None:
    saved = trained.agent.save(tmp_path / "saved")

    agent = IMPALA.load(saved, run_dir=tmp_path / "further", device="cpu")
    other = IMPALA.load(trained.run.checkpoints_path / trained.checkpoints[0].name)

    assert agent.run_dir == tmp_path / "further"
    assert are_equal(weights_of(agent), weights_of(trained.agent))
    assert other.run_dir != trained.run.path
    assert other.global_step == trained.checkpoints[0].step


def test_exported_policy_is_loaded_with_its_weights_alone(trained: Trained, tmp_path: Path) -> None:
    run = str(trained.run.path)
    assert main([run, "--episodes", "0", "--export", str(tmp_path / "policy"), "--no-onnx"]) == 0

    agent = IMPALA.load(tmp_path / "policy", run_dir=tmp_path / "run")

    assert are_equal(weights_of(agent), weights_of(trained.agent))
    assert agent.global_step == 0
    result = agent.eval(2)
    assert result.return_mean == result["episode_rewards"] == np.mean(result.returns)
    with pytest.raises(AttributeError, match="no attribute 'mean'"):
        _ = result.mean


def test_objects_that_no_file_holds_are_asked_for(tmp_path: Path) -> None:
    saved = make_agent(lambda: gymnasium.make("CartPole-v1"), model=Remembering).save(
        tmp_path / "saved"
    )

    with pytest.raises(ConfigError, match="env is None but must be the environment"):
        IMPALA.load(saved)
    with pytest.raises(ConfigError, match="model is None but must be the network"):
        IMPALA.load(saved, env="CartPole-v1")
    agent = IMPALA.load(saved, env="CartPole-v1", model=Remembering)
    action, state = agent.predict(OBSERVATIONS[0])
    assert action in (0, 1)
    with pytest.raises(ConfigError, match="this network has it as an input"):
        agent.predict(OBSERVATIONS[0], state)


def test_nothing_to_load_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        IMPALA.load(tmp_path)


def test_method_of_an_agent_loads_into_it(trained: Trained) -> None:
    agent = make_agent(**{**SMALL, "seed": 3})

    agent.load(trained.run.path)

    assert are_equal(weights_of(agent), weights_of(trained.agent))
    with pytest.raises(IllegalTransitionError):
        agent.set(optimizer="adam")
