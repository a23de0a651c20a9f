"""`make gpu`: steps that are killed lose no row, its page, and a rehearsal of cheap steps."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from benchmarks.gpu.gpu_page import find_gpu_figures, render_gpu
from benchmarks.gpu.plan import PLAN, TOTAL_S
from benchmarks.gpu.step import Step, StepSettings
from benchmarks.gpu.step_process import run_step
from benchmarks.suite.performance_page import render_page
from benchmarks.suite.section import Json, summarise
from benchmarks.suite.targets import load_targets

ROOT = Path(__file__).resolve().parents[3]
MACHINE = {
    "processor": "a processor",
    "gpu": "a GPU",
    "cores": 16,
    "python": "3.12",
    "packages": {"torch": "2.11"},
    "commit": "abc1234",
    "has_local_changes": False,
}
STEPS_TEXT = """
import subprocess, sys
def hang(settings, emit):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    emit({"number": 1, "words": settings.words})
    print("to stderr, not among the rows")
    emit({"number": 2, "child": child.pid})
    child.wait()
def fail(settings, emit):
    emit({"number": 1})
    raise SystemExit(3)
def well(settings, emit):
    emit({"device": settings.device})
"""


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit_s: float, **more: Any
) -> Json:
    (tmp_path / "odd_steps.py").write_text(STEPS_TEXT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    step = Step(name=name, function=f"odd_steps:{name}", limit_s=limit_s)
    settings = StepSettings(is_rehearsal=True, limit_s=limit_s, words=("a",))
    return run_step(step, settings, **more)


@pytest.mark.extended  # waits for the limit, which leaves time to start on a busy machine
@pytest.mark.timeout(120)
def test_step_that_hangs_is_ended_with_what_it_started_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with rows that are read when the process has ended."""
    told = run(tmp_path, monkeypatch, "hang", 20.0)

    first, second = told["rows"]
    assert first == {"number": 1, "words": ["a"]}
    assert told["error"] == "ended by force after 20 s"
    assert not psutil.pid_exists(second["child"]) or (
        psutil.Process(second["child"]).status() == psutil.STATUS_ZOMBIE
    )


@pytest.mark.timeout(120)
def test_step_is_ended_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far before its limit: an interruption of a rehearsal does not wait for steps under way."""
    stop = threading.Event()

    def interrupt(rows: list[Json]) -> None:
        if len(rows) == 2:
            stop.set()

    told = run(tmp_path, monkeypatch, "hang", 1000.0, keep=interrupt, stop=stop)

    assert told["error"] == "interrupted"
    assert len(told["rows"]) == 2


@pytest.mark.timeout(120)
def test_step_that_fails_keeps_its_rows_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run(tmp_path, monkeypatch, "fail", 50.0)

    assert told["rows"] == [{"number": 1}]
    assert told["error"].startswith("ended with 3")
    assert run(tmp_path, monkeypatch, "well", 50.0)["rows"] == [{"device": "cpu"}]


def test_plan_fits_into_nine_minutes_and_leaves_pong_a_minute() -> None:
    names = [step.name for step in PLAN]
    assert len(set(names)) == len(names)
    assert [step.name for step in PLAN if step.takes_rest] == names[-1:] == ["pong"]
    assert PLAN[-1].limit_s >= 60.0
    assert TOTAL_S <= 540.0


def make_result(is_rehearsal: bool) -> Json:
    learner = {
        "network": "nature_cnn", "variant": "bfloat16", "T": 20, "B": 256, "update_ms": 8.0,
        "steps_per_s": 640_000, "wall_us": summarise([1.5, 1.6, 1.7]), "cpu_us": 1.0,
        "first_call_s": 1.0, "busy_by_driver": 0.99, "busy_by_profiler": 0.93, "memory_gib": 2.5,
    }  # fmt: skip
    scan = {"T": 80, "B": 32, "us": {"loop": summarise([900.0]), "scan": summarise([100.0])}}
    system = {
        "all_windows": True, "steps_per_s": summarise([13_000.0]), "policy_lag": 3.0,
        "options": ["--model", "impala_resnet"], "cores": 16, "queue_fill": 0.4, "update_ms": 9.0,
    }  # fmt: skip
    copies = {
        "B": 32, "mb": 40.0, "is_pinned": True, "load_ms": 2.0, "update_ms": 8.0,
        "load_beside_update_ms": 2.5, "update_beside_load_ms": 8.1, "hidden_share": 0.96,
    }  # fmt: skip
    ranks = {
        "num_updates": 20, "is_right": True, "difference_to_one_learner": 1e-6,
        "difference_between_ranks": 0.0, "update_ms": 20.0, "exchange_ms": 4.0,
    }  # fmt: skip
    frames = {
        "B": 32, "gathered_mb": 5.0, "gathered_ms": 1.0, "stacks_mb": 19.0, "stacks_ms": 3.0,
        "gain": 3.0, "is_equal": True,
    }  # fmt: skip
    pong = {"return_mean": 18.5, "bar": 18.0, "steps": 10, "time_s": 90.0, "steps_per_s": 9e3}
    steps: dict[str, Any] = {
        "tests": {"rows": [{"code": 0, "passed": 4}]},
        "vtrace": {"rows": [scan]},
        "copies": {"rows": [copies]},
        "frames": {"rows": [frames]},
        "ranks": {"rows": [ranks]},
        "learner_nature_cnn_bfloat16": {"rows": [learner, {**learner, "B": 1024, "error": "no"}]},
        "system_resnet": {"rows": [{"steps_per_s": 1.0}, system], "error": "ended by force"},
        "pong": {"rows": [pong]},
    }
    return {
        "command": "python -m benchmarks.gpu", "when_utc": "2026-01-01 00:00", "duration_s": 500.0,
        "is_rehearsal": is_rehearsal, "machine": MACHINE, "steps": steps,
    }  # fmt: skip


def test_page_of_a_gpu_has_every_step_and_judges_the_targets() -> None:
    """Seen to fail with a busy share of compiled variants."""
    page = render_page({}, load_targets(), make_result(is_rehearsal=False))

    rows = {line.split(" | ")[0]: line.split(" | ") for line in page.splitlines()}
    assert (
        rows["| ALE Pong, IMPALA ResNet, whole system on a GPU: agent steps/s"][3] == "**13,000**"
    )
    assert rows["| V-trace's recursion at T 80, B 32 on a GPU: scan against loop"][3] == "**9.0**"
    busy = next(
        row for name, row in rows.items() if name.startswith("| The learner alone on a GPU")
    )
    assert busy[3] == "**93%**"
    assert "| nature_cnn | bfloat16 | 20 | 256 | 8.00 | 640,000 |" in page
    assert "4 passed, 0 failed" in page
    assert "best mean return of training episodes 18.5" in page
    assert "- system_resnet: ended by force" in page
    assert "- learner_nature_cnn_bfloat16, B 1024: no" in page
    assert "| B 32 | 5.0 | 1.00 | 19.0 | 3.00 | 3.0x | yes |" in page


def test_page_of_a_rehearsal_says_that_nothing_was_measured() -> None:
    result = make_result(is_rehearsal=True)

    page = render_page({}, load_targets(), result)

    assert find_gpu_figures(result) == {}
    assert "**No GPU was at hand: nothing below this line was measured on one.**" in page
    assert "7 of 8 steps ended well" in page
    assert "system_resnet (ended by force)" in page
    assert "13,000" not in page
    assert "`make gpu` has not been run" in render_gpu(None)


@pytest.mark.extended
@pytest.mark.timeout(300)
def test_rehearsal_runs_cheap_steps_and_leaves_measured_figures_alone(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    measured = make_result(is_rehearsal=False)
    path.write_text(json.dumps(measured))
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--result", str(path)]

    done = subprocess.run(
        [*command, "--only", "device", "vtrace", "frames"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    rows = {line["step"]: line for line in lines if "step" in line and "num_rows" not in line}
    assert rows["frames"]["is_equal"]
    assert rows["vtrace"]["max_difference"] < 1e-4
    assert lines[-1]["failed"] == []
    assert json.loads(path.read_text()) == measured
