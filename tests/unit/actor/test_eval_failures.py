"""impala-eval and evaluators on environments that raise while they are filmed, or that hang.

Seen to fail before: tracebacks of what an environment raised while it was filmed, OSErrors of it
told as "--video must be a folder to write to", and commands that waited for ever.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from run_folders import make_run_folder

from impala_actor.eval_cli import main
from impala_common.process import exit_codes
from impala_common.testing.environments import CountingEnv

KIT = Path(__file__).parents[2] / "kit"


class BreakingEnv(CountingEnv):
    """Raises in the method that is named, if it draws itself."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    where: ClassVar[str] = ""
    error: ClassVar[BaseException] = ValueError()

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode
        self._break("make")

    def reset(self, **options: Any) -> Any:
        self._break("reset")
        return super().reset(**options)

    def step(self, action: np.int64) -> Any:
        self._break("step")
        return super().step(action)

    def render(self) -> Any:
        return np.zeros((4, 4, 3), np.uint8)

    def _break(self, where: str) -> None:
        if self.render_mode and where == self.where:
            raise self.error


@pytest.mark.parametrize("where", ["make", "reset", "step"])
@pytest.mark.parametrize(
    "error", [ValueError("no licence"), OSError("no licence"), SystemExit("no licence")]
)
def test_environment_that_raises_while_it_is_filmed_is_named_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    error: BaseException,
) -> None:
    monkeypatch.setattr(BreakingEnv, "where", where)
    monkeypatch.setattr(BreakingEnv, "error", error)
    gymnasium.register("Breaking-v0", BreakingEnv)
    try:
        run = make_run_folder(tmp_path / "run", "Breaking-v0")
        options = ["--episodes", "0", "--video", str(tmp_path / "videos")]
        code = main([str(run), *options])
    finally:
        del gymnasium.registry["Breaking-v0"]

    assert code == (exit_codes.CONFIG if where == "make" else exit_codes.TEMPORARY)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert f"{type(error).__name__}: no licence" in line
    assert "--video" not in line
    assert not list((tmp_path / "videos").iterdir())


@pytest.mark.parametrize(
    "options", [[], ["--video", "videos", "--video-episodes", "50", "--episodes", "0"]]
)
def test_environment_that_hangs_ends_the_command_and_what_was_made_is_shown(
    tmp_path: Path, options: list[str]
) -> None:
    good = make_run_folder(tmp_path / "good", "faulty_environments:Drawn-v0")
    kwargs = json.dumps({"marker": str(tmp_path / "hung")})
    bad = make_run_folder(
        tmp_path / "bad",
        "faulty_environments:Hanging-v0",
        env_kwargs=kwargs,
        env_timeout_s=1.0,
    )
    command = [sys.executable, "-m", "impala_actor.eval_cli", str(good), str(bad), "--json"]
    done = subprocess.run(
        [*command, "--num-slots", "2", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(KIT)},
        timeout=50,
    )

    assert done.returncode == exit_codes.TEMPORARY
    assert "error: the environment has not returned for 1 s" in done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["run"] == str(good)
