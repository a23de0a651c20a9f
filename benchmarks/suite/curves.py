"""Draws docs/images/learning.png from docs/results: `python -m benchmarks.suite.curves`.

Trains nothing; part of `make pictures`. Where no result has curves nothing is drawn.

One panel per result that ladders kept with its curves, one thin line per seed.
Dotted: the bar. Dashed: what others publish, where `benchmarks.suite.published` knows it.
"""

from __future__ import annotations

import json
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.suite.machine import RESULTS
from benchmarks.suite.published import PUBLISHED

PICTURE = RESULTS.parent / "images" / "learning.png"
_NUM_COLUMNS = 3


def main() -> None:
    """Draws all results that have curves."""
    paths = sorted([*RESULTS.glob("*.json"), *RESULTS.glob("ladder/*.json")])
    found = {path.stem: json.loads(path.read_text()) for path in paths}
    results = {name: result for name, result in found.items() if _has_curves(result)}
    if not results:
        print("no result has curves: benchmarks.studies.ladder --name keeps them")
        return
    num_rows = -(-len(results) // _NUM_COLUMNS)
    figure = Figure(figsize=(4.2 * _NUM_COLUMNS, 3.1 * num_rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_rows, _NUM_COLUMNS, squeeze=False).flatten()
    for panel, (name, result) in zip(panels, results.items(), strict=False):
        _draw(panel, name, result)
    for panel in panels[len(results) :]:
        panel.set_visible(False)
    figure.savefig(PICTURE)
    print(f"wrote {PICTURE}")


def _has_curves(result: dict[str, Any]) -> bool:  # Any: JSON
    return "env" in result and any(run.get("curve") for run in result.get("runs", ()))


def _draw(panel: Axes, name: str, result: dict[str, Any]) -> None:  # Any: JSON
    for index, run in enumerate(result["runs"]):
        steps, returns = zip(*run["curve"], strict=True)
        panel.plot(steps, returns, color=f"C{index % 10}", linewidth=1.0)
    panel.axhline(result["bar"], color="black", linestyle=":", linewidth=1.0)
    for other in PUBLISHED.get(result["env"], ())[:1]:
        panel.axhline(other.return_mean, color="grey", linestyle="--", linewidth=1.0)
    panel.set_title(f"{name}: {result['env'].rpartition(':')[2]}", fontsize=9)
    panel.set_xlabel("agent steps", fontsize=8)
    panel.set_ylabel("return of training episodes", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(alpha=0.25)


if __name__ == "__main__":
    main()
