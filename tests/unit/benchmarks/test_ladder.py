"""The ladder: its statistics, its page from canned results, and when the bar is reached."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.studies import ladder
from benchmarks.suite import machine, training_run
from benchmarks.suite.intervals import bootstrap_interval, interquartile_mean
from benchmarks.suite.ladder_page import read_results, render_page, summarise_rung
from benchmarks.suite.rungs import FIRST_SEED, RUNGS, Rung

from impala_common.config.presets import make_preset, preset_for_environment
from impala_common.run import metrics

MACHINE = {"cores": 2, "processor": "a processor", "packages": {"torch": "1.0"}}
RUNG = Rung(env="Mine-v0", bar=10.0, num_seeds=3, aim="10 by 1k", tried="one setting")


def make_run(seed: int, value: float, time_to_bar_s: float | None = 4.0) -> dict[str, Any]:
    return {
        "seed": seed,
        "steps": 10_003,
        "training_time_s": 5.0,
        "wall_time_s": 9.0,
        "return_mean": value,
        "confidence_low": value - 1.0,
        "confidence_high": value + 1.0,
        "policy_lag_mean": 2.0,
        "steps_to_bar": None if time_to_bar_s is None else 500,
        "time_to_bar_s": time_to_bar_s,
        "best_return_mean": None,
        "best_steps": None,
        "options": ["--env", "Mine-v0"],
        "commit": "abc1234",
    }


def test_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    """Planted: a quarter rounded up; the values not in order."""
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, -100.0])) == 1.5
    assert interquartile_mean(np.array([3.0])) == 3.0
    assert interquartile_mean(np.array([9.0, 3.0, 0.0])) == 4.0  # a quarter of three is none
    rows = np.arange(10.0).reshape(2, 5)
    assert interquartile_mean(rows).tolist() == [2.0, 7.0]


def test_bootstrap_interval_is_about_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)

    low, high = bootstrap_interval([values.tolist()], lambda drawn: drawn.mean(axis=-1))

    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_bootstrap_draws_within_strata() -> None:
    """Two environments whose seeds agree leave no doubt. Planted: all values in one stratum."""
    strata = [[0.0] * 4, [10.0] * 4]

    assert bootstrap_interval(strata, lambda drawn: drawn.mean(axis=-1)) == (5.0, 5.0)


@pytest.mark.parametrize(("within_s", "is_missed"), [(0.0, False), (4.0, False), (3.9, True)])
def test_bar_that_is_reached_too_late_is_missed(within_s: float, is_missed: bool) -> None:
    rung = dataclasses.replace(RUNG, within_s=within_s)
    runs = [make_run(100, 12.0, 1.0), make_run(101, 12.0, 4.0), make_run(102, 12.0, 9.0)]

    page = render_page({"mine": {"machine": MACHINE, "runs": runs}}, {"mine": rung})

    assert ("- **mine**: one setting" in page) is is_missed


def test_page_counts_seeds_at_the_bar_and_keeps_what_was_missed() -> None:
    result = {"machine": MACHINE, "runs": [make_run(100, 12.0), make_run(101, 9.0, None)]}

    page = render_page({"mine": result}, {"mine": RUNG, "later": RUNG})

    row = next(line for line in page.splitlines() if line.startswith("| [mine]"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:5] == ["[mine](#mine)", "10 by 1k", "1 of 2 (3 wanted)", "10.5", "10.5"]
    assert cells[6:10] == ["10,003", "500", "4.0 (1 of 2)", "9.0"]
    assert "| later | 10 by 1k | not run yet |" in page
    assert "- **mine**: one setting" in page
    assert "- **later**: one setting" in page


def test_page_of_a_rung_that_is_met_says_so_and_drops_what_was_tried() -> None:
    runs = [make_run(100 + index, 10.0 + index) for index in range(3)]

    page = render_page({"mine": {"machine": MACHINE, "runs": runs}}, {"mine": RUNG})

    assert "| **3 of 3** | 11.0 | 11.0 |" in page
    assert "one setting" not in page


@pytest.mark.parametrize(
    ("loads", "times_s", "of"),
    [
        ((0.1, 0.1, 0.1), (4.0, 4.0, 9.0), ", 4 s from the command to it (median)"),
        (
            (0.1, 0.2, 1.6),
            (4.0, 4.0, 100.0),
            ", 4 s from the command to it (median of the 2 runs that had the cores to themselves)",
        ),
        ((0.1, 2.0, None), (4.0, 100.0, 100.0), ""),
        (
            (0.1, 0.1, 0.1),
            (4.0, 6.0, None),
            ", 5 s from the command to it (median of the 2 runs that had the cores to themselves "
            "and reached the bar)",
        ),
        ((0.1, 2.0, 2.0), (None, 4.0, 4.0), ""),
    ],
    ids=["all", "some", "one", "missed", "none"],
)
def test_summary_says_of_which_runs_its_time_is(
    loads: tuple[float | None, ...], times_s: tuple[float | None, ...], of: str
) -> None:
    """Planted: "(median)" alone, as if runs on shared cores counted, too."""
    runs = [make_run(100 + index, 10.0 + index, time_s) for index, time_s in enumerate(times_s)]
    for run, load in zip(runs, loads, strict=True):
        if load is not None:
            run["other_cores"] = load

    row = summarise_rung(RUNG, {"runs": runs})

    assert row == f"| Mine-v0, 10k steps | mean 11.0; 3 of 3 seeds at 10{of} |"


def test_bar_is_reached_by_a_mean_of_enough_episodes(tmp_path: Path) -> None:
    """Planted: one lucky first episode; the start of the command left out."""
    lines = [
        {metrics.STEPS: 100, metrics.TIME_S: 1.0, metrics.RETURN_MEAN: 99.0, metrics.EPISODES: 1},
        {metrics.STEPS: 200, metrics.TIME_S: 2.0, metrics.RETURN_MEAN: 5.0, metrics.EPISODES: 50},
        {metrics.STEPS: 300, metrics.TIME_S: 3.0, metrics.RETURN_MEAN: 10.0, metrics.EPISODES: 60},
        {metrics.STEPS: 400, metrics.TIME_S: 4.0, metrics.RETURN_MEAN: 20.0, metrics.EPISODES: 70},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    read = training_run._read_curve(tmp_path, 10.0, 2.5)

    assert (read["steps_to_bar"], read["time_to_bar_s"]) == (300, 5.5)
    assert read["curve"][-1] == [400, 20.0]
    assert training_run._read_curve(tmp_path, 100.0, 2.5)["time_to_bar_s"] is None


def test_each_run_names_its_processor_where_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: seeds that were added on another machine gave all rows its name."""
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    old = {"machine": MACHINE, "runs": [make_run(100, 11.0)]}
    (tmp_path / "mine.json").write_text(json.dumps(old))

    runs = machine.read_runs("mine")
    assert "| commit | processor |" not in render_page({"cartpole": old})
    runs.append({**make_run(101, 12.0), "processor": "another"})
    machine.save("mine", {"runs": runs})

    found = machine.read_runs("mine")
    assert [run["processor"] for run in found] == ["a processor", "another"]
    page = render_page({"cartpole": {"machine": MACHINE, "runs": found}})
    assert "| commit | processor |" in page
    assert "on 2 cores, a processor or another, torch" in page
    assert "| a processor |\n" in page
    assert "| another |\n" in page
    assert machine.read_runs("none") == []


def test_seeds_that_are_there_are_not_run_again_unless_options_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: options not compared, so that rows of another setting would be shown."""
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    arguments = ladder._fill_in(ladder.LadderArguments(rung="cartpole"))
    (tmp_path / "ladder").mkdir()
    mine = make_run(100, 500.0) | {"options": ladder._options(arguments)}
    other = make_run(101, 500.0) | {"options": ["--env", "Other-v0"]}
    path = tmp_path / "ladder" / "cartpole.json"
    path.write_text(json.dumps({"machine": MACHINE, "runs": [mine, other]}))

    assert ladder._read_rows(arguments).keys() == {100}


def test_unknown_rung_names_the_known() -> None:
    with pytest.raises(SystemExit, match="no rung 'x'; there are cartpole"):
        ladder._fill_in(ladder.LadderArguments(rung="x"))


@pytest.mark.parametrize("name", RUNGS)
def test_rung_is_run_within_what_its_aim_allows(name: str) -> None:
    """No rung names what the preset is to choose."""
    rung = RUNGS[name]
    seeds = ladder._fill_in(ladder.LadderArguments(rung=name)).seeds

    assert seeds == (FIRST_SEED, FIRST_SEED + rung.num_seeds - 1)
    assert "--learning-rate" not in rung.train_args
    limit = {"k": 1_000, "M": 1_000_000}
    number = next(word for word in rung.aim.replace(",", " ").split(" by ")[1].split())
    steps = rung.total_steps or make_preset(preset_for_environment(rung.env)).job.total_steps
    assert steps <= float(number[:-1]) * limit[number[-1]]


def test_results_are_those_of_known_rungs() -> None:
    assert read_results().keys() <= RUNGS.keys()
