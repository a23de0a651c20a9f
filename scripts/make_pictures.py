"""Makes the pictures of README from real runs: `make pictures` (two minutes).

docs/images/progress.svg is the display of impala-train at two thirds of a run;
docs/images/cartpole.png is drawn by impala-eval from the metrics of three runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from impala_common.config.presets import make_preset
from impala_common.config.toml_io import unpack_config
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory
from impala_server.local.actors import LocalActors
from impala_server.progress_display import ProgressDisplay
from impala_server.supervisor import Supervisor

_IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
_ENV = "CartPole-v1"


def main() -> None:
    """Makes both."""
    _IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _draw_progress(Path(folder) / "progress")
        _draw_curves(Path(folder))


def _draw_progress(path: Path) -> None:
    config = unpack_config({"environment": {"env": _ENV}}, make_preset("cartpole"))
    silent = Console(quiet=True)
    display = ProgressDisplay(config.job.total_steps, f"impala-train {_ENV}", silent)
    supervisor = Supervisor(config, RunDirectory(path))
    supervisor.start()
    actors = LocalActors(config, RunDirectory(path), supervisor.wait_until_bound())
    actors.start()
    while (status := supervisor.poll(0.2)) is not None:
        display.update(status)
        if status.get(metrics.STEPS, 0) > 0.66 * config.job.total_steps:
            break
    console = Console(record=True, width=100, force_terminal=True, file=sys.stderr)
    console.print(display.render())
    actors.stop()
    supervisor.close()
    svg = console.export_svg(title=f"make train  ({_ENV}, 2 cores)")
    # Fonts from elsewhere are not fetched by the pages that show this picture.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (_IMAGES / "progress.svg").write_text(svg)


def _draw_curves(folder: Path) -> None:
    commands = Path(sys.executable)
    runs = []
    for seed in (1, 2, 3):
        runs.append(str(folder / f"seed-{seed}"))
        options = ["--seed", str(seed), "--run-dir", runs[-1], "--quiet", "--eval-episodes", "0"]
        options += ["--log-interval-s", "0.1"]
        train = str(commands.with_name("impala-train"))
        subprocess.run([train, "--env", _ENV, *options], check=True)
    evaluate = str(commands.with_name("impala-eval"))
    plot = ["--episodes", "0", "--plot", str(_IMAGES / "cartpole.png")]
    subprocess.run([evaluate, *runs, *plot], check=True)


if __name__ == "__main__":
    main()
