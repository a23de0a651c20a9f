"""`make fuzz EXECUTIONS=1000000`: every target, with atheris where it is installed.

Writes docs/results/fuzz.json: executions, their rate, edges and features reached, peak memory and
findings for each target. A finding's input is kept in build/fuzz and ends the command with
code 1; make a regression test of it (tests/fuzz/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mutations import FindingError, drive
from targets import TARGETS, Target

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "fuzz.json"
WORK = ROOT / "build" / "fuzz"
_MAX_INPUT_BYTES = 4096
_TIMEOUT_S = 10
_RSS_LIMIT_MIB = 2048


def main() -> int:
    """Runs the targets and writes the figures."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--executions", type=int, default=100_000, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    arguments = parser.parse_args()
    has_atheris = importlib.util.find_spec("atheris") is not None
    fuzz = _run_atheris if has_atheris else _run_mutations
    figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    is_clean = True
    for name in arguments.target or TARGETS:
        result = fuzz(TARGETS[name], arguments.executions, arguments.seed)
        is_clean &= not result["findings"]
        sys.stdout.write(f"{name}: {json.dumps(result)}\n")
        figures[name] = result
        RESULTS.write_text(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
    return 0 if is_clean else 1


def _run_atheris(target: Target, executions: int, seed: int) -> dict[str, Any]:
    """Runs libFuzzer in a process of its own and reads its last figures."""
    corpus, found = WORK / target.name / "corpus", WORK / target.name / "findings"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(target.seeds()):
        (corpus / f"seed-{index}").write_bytes(data)
    before = {path.name for path in found.iterdir()}
    start_s = time.monotonic()
    command = [
        sys.executable,
        str(Path(__file__).parent / "coverage_guided.py"),
        target.name,
        f"-runs={executions}",
        f"-seed={seed}",
        f"-max_len={_MAX_INPUT_BYTES}",
        f"-timeout={_TIMEOUT_S}",
        f"-rss_limit_mb={_RSS_LIMIT_MIB}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (WORK / target.name / "log.txt").write_text(done.stdout + done.stderr)
    findings = sorted({path.name for path in found.iterdir()} - before)
    if done.returncode != 0 and not findings:
        findings = [f"the fuzzer ended with code {done.returncode}: {done.stderr[-300:]}"]
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    reached = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    edges, features = reached[-1] if reached else (0, 0)
    return {
        **_circumstances("atheris", seed),
        "executions": int(stats.get("number_of_executed_units", 0)),
        "seconds": round(time.monotonic() - start_s, 1),
        "edges": int(edges),
        "features": int(features),
        "peak_rss_mib": int(stats.get("peak_rss_mb", 0)),
        "findings": findings,
    }


def _run_mutations(target: Target, executions: int, seed: int) -> dict[str, Any]:
    findings, result = [], None
    try:
        result = drive(target, executions, seed)
    except FindingError as finding:
        findings.append(str(finding))
    return {
        **_circumstances("mutations", seed),
        "executions": result.executions if result else 0,
        "accepted": result.accepted if result else 0,
        "seconds": round(result.seconds, 1) if result else 0.0,
        "findings": findings,
    }


def _circumstances(driver: str, seed: int) -> dict[str, Any]:
    version = importlib.metadata.version("atheris") if driver == "atheris" else ""
    return {
        "driver": f"{driver} {version}".strip(),
        "python": platform.python_version(),
        "seed": seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
