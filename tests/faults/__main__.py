"""A faulted run by command: `make faults` and `make soak`.

    python -m faults [--minutes 8] [--seed N] [--control | --spare-learner] [--results FILE]

Ends with 0 if everything that was promised held. A run that is interrupted (Ctrl-C, SIGTERM) heals
and judges what it has. Figures are written twice a minute, under the name of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "kit"), str(ROOT / "tests"), str(ROOT)]

from benchmarks.suite.machine import describe_machine  # noqa: E402
from faults.cluster import Cluster  # noqa: E402
from faults.nemesis import Nemesis, write_result  # noqa: E402
from faults.plan import SHORT_MINUTES, counts_for, make_plan  # noqa: E402


def main() -> int:
    """Runs and returns the exit code."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=SHORT_MINUTES)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--name", default="")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "faults.json")
    parser.add_argument("--control", action="store_true", help="the same without faults")
    parser.add_argument(
        "--spare-learner", action="store_true", help="nothing is done to it: for its memory"
    )
    parser.add_argument("--keep", action="store_true", help="keep the run's files")
    arguments = parser.parse_args()
    kind = "control" if arguments.control else "learner-spared" if arguments.spare_learner else ""
    name = arguments.name or kind or f"faults-{arguments.seed}"
    counts = {} if arguments.control else counts_for(arguments.minutes)
    if arguments.spare_learner:
        counts = {kind: count for kind, count in counts.items() if not kind.startswith("learner")}
    folder = Path(tempfile.mkdtemp(prefix="impala-faults-"))
    facts = {"machine": describe_machine(), "seed": arguments.seed, "minutes": arguments.minutes}
    facts |= {"load_average_before": round(os.getloadavg()[0], 2), "planned": counts}
    print(f"{name}: seed {arguments.seed}, {arguments.minutes:g} minutes, in {folder}", flush=True)

    def save(result: dict[str, Any]) -> None:
        write_result(arguments.results, name, facts | result)

    duration_s = arguments.minutes * 60
    plan = make_plan(arguments.seed, duration_s, counts)
    with Cluster(folder, step_ms=2.0 if arguments.minutes <= 30 else 6.0) as cluster:
        nemesis = Nemesis(cluster, plan, duration_s, save)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *unused: nemesis.stop.set())
        result = nemesis.run()
    save(result)
    print(json.dumps(result, indent=2))
    if not result["num_violations"] and not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if result["num_violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
