"""impala-eval on a hand-made run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from run_folders import make_run_folder

from impala_actor import eval_cli
from impala_actor.eval_cli import main
from impala_common.process import exit_codes

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

BANDIT = "impala_common.testing.environments:ContextualBandit-v0"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on the bandit with fresh weights; actions are near chance when drawn."""
    return make_run_folder(tmp_path / "run", BANDIT)


def test_main_with_json_prints_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--json", "--episodes", "30", "--seed", "3"]) == exit_codes.OK
    first = capsys.readouterr().out
    assert main([str(run), "--json", "--episodes", "30", "--seed", "3"]) == exit_codes.OK

    assert capsys.readouterr().out == first
    (line,) = first.splitlines()
    result = json.loads(line)
    assert (result["run"], result["env"], result["step"]) == (str(run), BANDIT, 4000)
    assert result["num_episodes"] == 30
    assert 0.0 < result["return_mean"] < 1.0
    assert result["length_max"] == 1


def test_main_with_several_runs_prints_a_plain_line_each_and_plots(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "curves.png"
    options = ["--episodes", "8", "--greedy", "--num-slots", "4", "--plot", str(picture)]

    assert main([str(run), str(run), *options]) == exit_codes.OK

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2] == f"wrote {picture}"
    assert lines[0].startswith(f"{run} {BANDIT} step 4000: return 0.")
    assert "(8 episodes, greedy)" in lines[0]
    assert picture.exists()


def test_main_on_a_terminal_prints_a_table(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    assert main([str(run), "--episodes", "1"]) == exit_codes.OK

    assert "Evaluation with frozen weights" in capsys.readouterr().out


def test_main_with_damaged_or_foreign_run_ends_with_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: list[tuple[list[str], int]] = [
        ([], exit_codes.USAGE),
        ([str(run / "nothing")], exit_codes.CONFIG),
        ([str(run), "--episodes", "0"], exit_codes.CONFIG),
        ([str(run), "--env", "CartPol-v1"], exit_codes.CONFIG),
        ([str(run), "--env", "Acrobot-v1"], exit_codes.CONFIG),
        ([str(run), "--checkpoint", "step-000000000001"], exit_codes.UNUSABLE_DATA),
    ]

    for arguments, code in cases:
        assert main(arguments) == code, arguments
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: "), arguments
        assert captured.err.count("\n") == 1

    (run / "specs.json").write_text("{}")
    assert main([str(run)]) == exit_codes.UNUSABLE_DATA


def test_weights_of_another_network_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = json.loads((run / "specs.json").read_text())
    specs["model"]["hidden_dim"] = 16
    (run / "specs.json").write_text(json.dumps(specs))

    assert main([str(run)]) == exit_codes.UNUSABLE_DATA
    assert "another network" in capsys.readouterr().err


def test_help_does_not_import_torch_or_matplotlib() -> None:
    code = (
        "import sys\n"
        "from impala_actor.eval_cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*{'torch', 'matplotlib', 'gymnasium'} & set(sys.modules), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "--episodes" in done.stdout
    assert done.stderr.strip() == ""


def test_main_with_plot_where_matplotlib_is_missing_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda unused_name: None)

    assert main([str(run), "--episodes", "0", "--plot", "x.png"]) == exit_codes.CONFIG

    assert "--plot is 'x.png' but must be left out here: matplotlib is not" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--plot", "/none/x.png"], "--plot is '/none/x.png' but must be a picture file"),
        (["--plot", "x.doc"], "--plot is 'x.doc' but must be a file with the ending"),
        (["--plot", "curve"], "--plot is 'curve' but must be a file with the ending"),
        (["--plot", "/tmp/.png/"], "--plot is '/tmp/.png' but must be a file with the ending"),
        (["--video", "/dev/null/x"], "--video is '/dev/null/x' but must be a folder to write to"),
        (["--export", "/dev/null"], "--export is '/dev/null' but must be a new or empty folder"),
        (["--export", "/proc/x"], "--export is '/proc/x' but must be a new or empty folder"),
        (["--checkpoint", "bestt"], "no checkpoint 'bestt' in"),
        (["/none"], "RUN is '/none' but must be a run's folder"),
    ],
)
def test_main_says_what_cannot_be_written_before_it_plays(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    named: str,
) -> None:
    """Before: torch was loaded, and all episodes were played for nothing."""
    monkeypatch.setattr(eval_cli, "_report_all", lambda *unused: pytest.fail("plays"))

    assert main([str(run), *options]) in (
        exit_codes.CONFIG,
        exit_codes.UNUSABLE_DATA,
    )

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]


CARTPOLE = "CartPole-v1"


@pytest.fixture
def cartpole_run(tmp_path: Path) -> Path:
    """A run on CartPole with fresh weights and a memory."""
    return make_run_folder(tmp_path / "my run", CARTPOLE)


@pytest.mark.parametrize("video_format", ["mp4", "gif"])
def test_main_with_video_writes_named_files_that_show_the_game(
    cartpole_run: Path,
    tmp_path: Path,
    video_format: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "new" / "videos"
    options = ["--episodes", "0", "--video", str(folder), "--video-episodes", "2", "--json"]

    assert main([str(cartpole_run), *options, "--video-format", video_format]) == exit_codes.OK

    (line,) = capsys.readouterr().out.splitlines()
    paths = [Path(name) for name in json.loads(line)["videos"]]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert len(paths) == 2
    for number, path in enumerate(paths, start=1):
        match = re.fullmatch(
            rf"my-run-step-4000-episode-{number}-return-(\d+)\.{video_format}", path.name
        )
        assert match is not None
        # CartPole pays 1 per step; there is a picture of the reset, and one of each step.
        frames = read_frames(path)
        assert len(frames) == int(match[1]) + 1
        assert (frames[0] != frames[-1]).any()


def read_frames(path: Path) -> list[np.ndarray]:
    """Returns the pictures at CartPole's 50 per second; a GIF has equal neighbours only once."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return [
                np.asarray(frame.convert("RGB"))
                for frame in ImageSequence.Iterator(image)
                for _ in range(frame.info["duration"] // 20)
            ]
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]


def test_main_with_video_of_long_episode_cuts_it_and_says_so(
    cartpole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--episodes", "2", "--video", str(tmp_path / "v"), "--video-max-steps", "3"]

    assert main([str(cartpole_run), *options]) == exit_codes.OK

    (path,) = (tmp_path / "v").iterdir()
    assert path.name == "my-run-step-4000-episode-1-return-3-cut.mp4"
    lines = capsys.readouterr().out.splitlines()
    assert "(2 episodes, sampled)" in lines[0]
    assert lines[1] == f"wrote {path}"


def test_main_with_video_that_cannot_be_made_ends_with_one_line(
    run: Path, cartpole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    cases: list[tuple[list[str], str]] = [
        ([str(run), "--video", str(tmp_path / "v")], BANDIT),
        ([str(cartpole_run), "--video", str(tmp_path / "file")], "folder to write to"),
        ([str(cartpole_run), "--video", str(tmp_path / "v"), "--env", "Acrobot-v1"], "shape"),
        ([str(cartpole_run), "--video", "v", "--video-episodes", "0"], "--video-episodes"),
    ]

    for arguments, text in cases:
        assert main(arguments) == exit_codes.CONFIG, arguments
        captured = capsys.readouterr()
        assert captured.out == ""
        error = captured.err.splitlines()[-1]
        assert error.startswith("error: ")
        assert text in error


def test_main_with_video_where_libraries_are_missing_names_the_extra(
    cartpole_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda unused_name: None)

    assert main([str(cartpole_run), "--video", "v"]) == exit_codes.CONFIG

    assert "(extra impala-rl[video])" in capsys.readouterr().err
