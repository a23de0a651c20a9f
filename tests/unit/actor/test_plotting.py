from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from impala_actor.evaluation.plotting import plot_runs, read_curve
from impala_common.errors import ConfigError


def make_run(path: Path, lines: list[dict[str, Any]], tail: str = "") -> Path:
    path.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines) + tail
    (path / "metrics.jsonl").write_text(text)
    return path


def line(steps: int, mean: float | None, **others: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"steps": steps, "time_s": steps / 1000} | others
    return data if mean is None else data | {"episode/return_mean": mean}


def test_plot_runs_draws_every_run(tmp_path: Path) -> None:
    band = {"episode/return_std": 3.0, "episode/return_min": 0.0, "episode/return_max": 50.0}
    runs = [
        make_run(tmp_path / name, [line(1000 * n, 10.0 * n, **band) for n in range(1, 6)])
        for name in ("first", "second")
    ]

    plot_runs(runs, tmp_path / "curves.png")
    plot_runs(runs[:1], tmp_path / "curve.svg")

    image = imread(tmp_path / "curves.png")
    assert image.shape[1] > image.shape[0] > 300
    pixels = np.round(image[..., :3] * 255).astype(int).reshape(-1, 3)
    assert {(31, 119, 180), (255, 127, 14)} <= {tuple(pixel) for pixel in pixels.tolist()}
    assert "first" in (tmp_path / "curve.svg").read_text()


def test_read_curve_passes_over_torn_and_empty_lines(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        [line(100, None), line(200, math.nan), line(300, 5.0), line(400, 6.0)],
        tail='{"steps": 500, "episode/retu',
    )

    curve = read_curve(run)

    assert curve.label == "run"
    assert curve.steps.tolist() == [300, 400]
    assert curve.means.tolist() == [5.0, 6.0]
    assert np.isnan(curve.lows).all()


def test_read_curve_keeps_the_band_inside_what_was_reached(tmp_path: Path) -> None:
    deviation, extremes = {"episode/return_std": 20.0}, {"episode/return_max": 500.0}
    bands = [deviation, deviation | extremes, extremes]
    run = make_run(tmp_path / "run", [line(n, 490.0, **band) for n, band in enumerate(bands)])

    curve = read_curve(run)

    assert curve.lows[:2].tolist() == [470.0, 470.0]
    assert curve.highs.tolist() == [510.0, 500.0, 500.0]


def test_read_curve_of_resumed_run_leaves_out_what_was_done_over(tmp_path: Path) -> None:
    """Seen to fail without it: the line ran back from 300 to 150."""
    steps = [(100, 1.0), (200, 2.0), (300, 3.0), (150, 4.0), (250, 5.0)]
    run = make_run(tmp_path / "run", [line(*values) for values in steps])

    curve = read_curve(run)

    assert curve.steps.tolist() == [100, 150, 250]
    assert curve.means.tolist() == [1.0, 4.0, 5.0]


def test_evaluations_are_points_of_their_own_with_intervals(tmp_path: Path) -> None:
    """Those of 150 and 120 were reported in the wrong order, and 300 was rolled back to 200.

    Planted: the order of the lines taken; what was done over not left out.
    """
    verdicts = [
        (150, 0.15, 4.0, 3.0, 6.0),
        (120, 0.12, 1.0, 0.0, 2.0),
        (300, 0.3, 9.0, 8.0, 10.0),
        (200, 0.4, 5.0, None, None),
    ]
    lines = [line(100, 1.0), line(200, 2.0)]
    for steps, time_s, mean, low, high in verdicts:
        values = {"evaluation/return_mean": mean, "time_s": time_s}
        values |= {"evaluation/return_low": low, "evaluation/return_high": high}
        lines.append(line(steps, None, **values))
    run = make_run(tmp_path / "run", lines)

    curve = read_curve(run)
    plot_runs([run], tmp_path / "curve.svg")

    assert curve.steps.tolist() == [100, 200]
    points = curve.evaluations
    assert points.steps.tolist() == [120, 150, 200]
    assert points.times_s.tolist() == [0.12, 0.15, 0.4]
    assert points.means.tolist() == [1.0, 4.0, 5.0]
    assert (points.lows.tolist(), points.highs.tolist()) == ([0.0, 3.0, 5.0], [2.0, 6.0, 5.0])
    assert "frozen weights, 95 % interval" in (tmp_path / "curve.svg").read_text()


def test_plot_runs_without_time_or_with_one_point_works(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [{"steps": 5, "episode/return_mean": 1.0}])

    plot_runs([run], tmp_path / "curve.png")

    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize("lines", [[], [line(100, None)]])
def test_plot_runs_without_data_says_so(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    run = make_run(tmp_path / "run", lines)

    with pytest.raises(ConfigError, match="no finished episode"):
        plot_runs([run], tmp_path / "curve.png")


def test_plot_runs_without_run_or_with_bad_suffix_raises(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(1, 1.0)])

    with pytest.raises(ConfigError, match="RUN"):
        plot_runs([tmp_path / "nothing"], tmp_path / "curve.png")
    with pytest.raises(ConfigError, match="picture"):
        plot_runs([run], tmp_path / "curve.nonsense")
