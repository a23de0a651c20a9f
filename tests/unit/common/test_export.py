"""Exports of impala-eval are complete, describe themselves, and give the same policy again.

Seen to fail with: weights read without their digest, an earlier policy.onnx left beside new
weights, an own network imported because the file names it, an import of grpc on the way of the
example, the folder looked at after the episodes were played.
"""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import safetensors.numpy
from run_folders import make_run_folder

from impala_actor.eval_cli import main
from impala_common.config.sections import ModelConfig
from impala_common.errors import CheckpointError, ConfigError
from impala_common.policy.exported_policy import load_exported_policy, load_policy
from impala_common.process import exit_codes
from impala_common.spec.action_decoding import PartDecoder

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = {"policy.json", "policy.onnx", "policy.safetensors"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on CartPole with fresh weights and a memory."""
    return make_run_folder(tmp_path_factory.mktemp("runs") / "run", "CartPole-v1")


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its policy; judged by four episodes."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported") / "new" / "policy"
    assert main([str(run), "--episodes", "4", "--export", str(folder)]) == exit_codes.OK
    return folder


def test_export_writes_files_that_say_what_they_are(run: Path, exported: Path) -> None:
    about = json.loads((exported / "policy.json").read_text())

    assert {path.name for path in exported.iterdir()} == FILES
    assert (about["format"], about["version"]) == ("impala-rl policy", 1)
    assert (about["run"], about["env"], about["step"]) == (run.name, "CartPole-v1", 4000)
    assert about["evaluation"]["num_episodes"] == 4
    assert [tensor["name"] for tensor in about["inputs"]] == [
        "observation", "is_first", "state_0", "state_1",
    ]  # fmt: skip
    assert about["inputs"][0] == {"name": "observation", "shape": ["N", 4], "dtype": "float32"}
    assert about["outputs"][0] == {"name": "policy_logits", "shape": ["N", 2], "dtype": "float32"}
    assert about["outputs"][2] == {"name": "next_state_0", "shape": [1, "N", 8], "dtype": "float32"}
    assert about["states"] == ["state_0", "state_1"]
    assert set(about["files"]) == FILES - {"policy.json"}
    assert about["versions"]["torch"]
    assert str(run.parent) not in (exported / "policy.json").read_text()


def test_exported_policy_acts_as_the_run_does(run: Path, exported: Path) -> None:
    from impala_common.policy.frozen_run import load_frozen_run
    from impala_common.policy.policy import Policy

    original = load_frozen_run(run)
    policies = [
        load_exported_policy(exported).make_policy(3, seed=4),
        Policy(original.model, original.environment.action, 3, seed=4),
    ]
    random = np.random.default_rng(0)

    for step in range(4):
        observations = {"observation": random.standard_normal((3, 4)).astype(np.float32)}
        is_first = np.full(3, step == 0)
        first, second = (policy.act(observations, is_first) for policy in policies)
        np.testing.assert_array_equal(first.logits, second.logits)
        np.testing.assert_array_equal(first.actions, second.actions)


def test_export_into_an_earlier_export_replaces_it_whole(run: Path, exported: Path) -> None:
    folder = exported.parent / "again"
    shutil.copytree(exported, folder)

    code = main([str(run), "--episodes", "0", "--export", str(folder), "--no-onnx"])

    assert code == exit_codes.OK
    assert {path.name for path in folder.iterdir()} == FILES - {"policy.onnx"}
    about = json.loads((folder / "policy.json").read_text())
    assert about["evaluation"] is None
    assert set(about["files"]) == {"policy.safetensors"}
    load_exported_policy(folder)


def test_export_into_a_folder_with_something_else_is_refused_at_once(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "policy.json").write_text('{"format": "another"}')
    cases = {
        tmp_path: "it holds foreign, thesis.txt",
        tmp_path / "thesis.txt": "it is a file",
        foreign: "its policy.json is not ours",
    }

    for folder, text in cases.items():
        # So many episodes would take minutes: the folder is looked at before they are played.
        assert main([str(run), "--episodes", "1000000", "--export", str(folder)]) == (
            exit_codes.CONFIG
        )
        error = capsys.readouterr().err
        assert "a new or empty folder" in error
        assert text in error
    assert (foreign / "policy.json").read_text() == '{"format": "another"}'
    assert main([str(run), str(run), "--export", str(tmp_path / "x")]) == exit_codes.CONFIG
    assert "single RUN" in capsys.readouterr().err


def test_export_without_onnx_libraries_writes_the_rest_and_names_the_extra(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda unused_name: None)

    code = main([str(run), "--episodes", "0", "--json", "--export", str(tmp_path / "x")])

    captured = capsys.readouterr()
    assert code == exit_codes.OK
    assert "pip install 'onnx" in captured.err
    written = [Path(name).name for name in json.loads(captured.out)["exported"]]
    assert written == ["policy.safetensors", "policy.json"]


def test_load_of_damaged_or_foreign_export_says_what_is_wrong(
    exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="no exported policy"):
        load_exported_policy(tmp_path)
    (tmp_path / "policy.json").write_text("{}")
    with pytest.raises(CheckpointError, match="foreign"):
        load_exported_policy(tmp_path)

    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    about = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps(about | {"version": 2}))
    with pytest.raises(CheckpointError, match="version 2: expected 1"):
        load_exported_policy(folder)
    (folder / "policy.json").write_text(json.dumps(about))
    weights = safetensors.numpy.load_file(folder / "policy.safetensors")
    safetensors.numpy.save_file(
        {name: array + 1 for name, array in weights.items()}, folder / "policy.safetensors"
    )
    with pytest.raises(CheckpointError, match="sha256"):
        load_exported_policy(folder)


def test_own_network_is_exported_and_loaded_only_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    name = "own_model:ResidualMlp"
    run = make_run_folder(tmp_path / "run", "CartPole-v1", ModelConfig(model=name))

    code = main([str(run), "--episodes", "0", "--export", str(tmp_path / "policy")])

    assert code == exit_codes.OK
    about = json.loads((tmp_path / "policy" / "policy.json").read_text())
    assert set(about["files"]) == FILES - {"policy.json"}
    assert [tensor["name"] for tensor in about["inputs"]] == [
        "observation", "is_first", "previous_action", "previous_reward",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"must be 'own_model:ResidualMlp'.*not imported"):
        load_exported_policy(tmp_path / "policy")
    policy = load_exported_policy(tmp_path / "policy", own_model=name).make_policy(2)
    step = policy.act({"observation": np.ones((2, 4), np.float32)}, np.ones(2, np.bool_))
    assert step.actions.shape == (2,)
    example = "load_exported_policy.py"
    monkeypatch.setattr(sys, "argv", [example, str(tmp_path / "policy"), "2", name])
    runpy.run_path(str(EXAMPLES / example), run_name="__main__")
    assert capsys.readouterr().out.endswith(" of 2 episodes\n")


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("example", "forbidden"),
    [
        ("load_exported_policy.py", ["impala_server", "grpc"]),
        ("play_onnx.py", ["impala_server", "impala_actor", "impala_common", "torch", "grpc"]),
    ],
)
def test_example_plays_an_export_without_what_it_must_not_need(
    exported: Path, example: str, forbidden: list[str]
) -> None:
    code = (
        "import runpy, sys\n"
        f"for name in {forbidden!r}: sys.modules[name] = None\n"  # importing it raises
        f"sys.argv = ['example', {str(exported)!r}, '3']\n"
        f"runpy.run_path({str(EXAMPLES / example)!r}, run_name='__main__')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CartPole-v1: mean return ")
    assert done.stdout.endswith(" of 3 episodes\n")


def play_onnx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["play_onnx.py", str(folder), "1"])
    runpy.run_path(str(EXAMPLES / "play_onnx.py"), run_name="__main__")


def test_example_plays_continuous_actions_as_the_policy_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen to fail with actions that were not stretched to the bounds."""
    pytest.importorskip("onnxruntime")
    run = make_run_folder(tmp_path / "run", "Pendulum-v1")
    folder = tmp_path / "policy"
    assert main([str(run), "--episodes", "0", "--export", str(folder)]) == exit_codes.OK
    exported = load_exported_policy(folder)
    policy, decode = exported.make_policy(1), PartDecoder(exported.environment.action.parts[0])
    pendulum = gymnasium.make("Pendulum-v1")
    observation, _ = pendulum.reset(seed=0)
    total, is_first, is_over = 0.0, True, False
    while not is_over:
        rows = {"observation": observation[np.newaxis]}
        step = policy.act(rows, np.array([is_first]), is_greedy=True)
        observation, reward, _, is_over, _ = pendulum.step(decode(step.actions)[0])
        total, is_first = total + float(reward), False
        policy.observe(np.array([reward], np.float32), np.array([is_first]))

    play_onnx(folder, monkeypatch)

    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Pendulum-v1: mean return ")
    assert float(line.split()[3]) == pytest.approx(total, abs=0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "bernoulli", "starts": [], "sizes": []},
        {"kind": "categorical", "sizes": [2, 3], "starts": [0, 0]},
        {"kind": "gaussian", "lows": [None], "highs": [1.0]},
    ],
    ids=["bernoulli", "several", "unbounded"],
)
def test_example_says_which_actions_it_does_not_play(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """Seen to fail without the look: an IndexError, or actions that mean something else."""
    shutil.copytree(exported, tmp_path / "policy")
    path = tmp_path / "policy" / "policy.json"
    about = json.loads(path.read_text())
    about["environment"]["action"]["parts"][0] |= changes
    path.write_text(json.dumps(about))

    with pytest.raises(SystemExit, match="CartPole-v1: not one Box observation and one Discrete"):
        play_onnx(tmp_path / "policy", monkeypatch)


def test_load_policy_takes_a_run_as_well_as_an_exported_policy(run: Path, exported: Path) -> None:
    of_run, of_export = load_policy(run), load_policy(exported)

    assert (of_run.env, of_run.step) == (of_export.env, of_export.step)
    observations = {"observation": np.ones((1, 4), np.float32)}
    first, second = (
        one.make_policy(1, seed=3).act(observations, np.ones(1, np.bool_))
        for one in (of_run, of_export)
    )
    np.testing.assert_array_equal(first.logits, second.logits)
    with pytest.raises(ConfigError, match="is an exported policy, which has no others"):
        load_policy(exported, checkpoint="best")
    with pytest.raises(ConfigError, match="a run's folder"):
        load_policy(exported.parent / "nothing")


def test_load_policy_imports_no_network_that_only_the_run_names(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    specs = json.loads((folder / "specs.json").read_text())
    specs["model"]["name"] = "no_such_module:Net"
    (folder / "specs.json").write_text(json.dumps(specs))

    with pytest.raises(ConfigError, match="is not imported by itself"):
        load_policy(folder)
