"""impala-eval shows what it has made when an error ends it, and refuses results that are none.

Written to find: an error in the last of several runs, in the plot or in the export, after which
minutes of episodes were lost; NaN returns that ended in a traceback, after the old export was gone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from run_folders import make_run_folder

from impala_actor import eval_cli
from impala_actor.eval_cli import main
from impala_common.errors import ConfigError
from impala_common.process import exit_codes
from impala_common.testing.environments import ContextualBanditEnv, Info, Observation

BANDIT = "impala_common.testing.environments:ContextualBandit-v0"


class RewardingBandit(ContextualBanditEnv):
    """The contextual bandit with another reward."""

    def __init__(self, reward: float) -> None:
        super().__init__()
        self._reward = reward

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, self._reward, terminated, truncated, info


for _name, _reward in (("Nan-v0", np.nan), ("Inf-v0", np.inf), ("Two-v0", 2.0)):
    gymnasium.register(_name, entry_point=RewardingBandit, kwargs={"reward": _reward})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path / "run", BANDIT)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A run that is found to be unusable only when it is loaded."""
    path = make_run_folder(tmp_path / "damaged", BANDIT)
    (path / "specs.json").write_text("{}")
    return path


def test_results_of_runs_before_a_damaged_one_are_shown(
    run: Path, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(run), str(run), str(damaged), str(run), "--episodes", "2", "--json"]

    assert main(arguments) == exit_codes.UNUSABLE_DATA

    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["num_episodes"] for line in lines] == [2, 2]
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_run_without_an_episode_to_plot_is_refused_before_episodes(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "metrics.jsonl").write_text('{"steps": 4000}\n')
    monkeypatch.setattr(eval_cli, "_report_all", lambda *unused: pytest.fail("plays"))

    assert main([str(run), "--plot", str(run / "x.png")]) == exit_codes.CONFIG

    assert "no finished episode" in capsys.readouterr().err


def test_result_is_shown_where_the_plot_or_the_export_fails_after_it(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*unused: Any, **also_unused: Any) -> None:
        raise ConfigError("output", "x", "a file", "the disk is full")

    monkeypatch.setattr("impala_actor.evaluation.plotting.plot_runs", fail)
    monkeypatch.setattr("impala_actor.evaluation.policy_export.export_policy", fail)
    for option in (["--plot", str(run / "x.png")], ["--export", str(run / "policy")]):
        assert main([str(run), "--episodes", "2", *option]) == exit_codes.CONFIG

        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        assert "(2 episodes, sampled)" in line
        assert captured.err == ("error: output is 'x' but must be a file: the disk is full\n")


@pytest.mark.parametrize("name", ["Nan-v0", "Inf-v0"])
def test_return_that_is_not_finite_is_no_result_and_leaves_the_earlier_export(
    run: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    export = run / "policy"
    options = ["--episodes", "2", "--json"]
    assert main([str(run), *options, "--export", str(export), "--no-onnx"]) == exit_codes.OK
    before = {path.name: path.read_bytes() for path in export.iterdir()}
    capsys.readouterr()

    for more in ([], ["--export", str(export), "--no-onnx"]):
        assert main([str(run), *options, "--env", name, *more]) == exit_codes.TEMPORARY

        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: the evaluation is no result: a return is ")
        assert captured.err.count("\n") == 1, captured.err

    assert {path.name: path.read_bytes() for path in export.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "is_kept"),
    [
        ([], True),
        (["--env", BANDIT], True),
        (["--env", "Two-v0"], False),
        (["--env-wrapper", "gymnasium.wrappers:RecordEpisodeStatistics"], False),
    ],
    ids=["as-trained", "the-same-named", "another", "wrapped"],
)
def test_export_has_no_evaluation_of_another_environment(
    run: Path, capsys: pytest.CaptureFixture[str], options: list[str], is_kept: bool
) -> None:
    """Seen to fail: policy.json named the return of any environment beside training's."""
    export = run / "policy"

    code = main([str(run), "--episodes", "2", *options, "--export", str(export), "--no-onnx"])

    assert code == exit_codes.OK
    evaluation = json.loads((export / "policy.json").read_text())["evaluation"]
    assert (evaluation is not None) == is_kept
    assert ("the evaluation is left out" in capsys.readouterr().err) != is_kept
