"""One section in a process of its own: settings as JSON from stdin, the result into a file.

Started by `measure_section`, from `python -m benchmarks`. What a section does to torch's threads,
the allocator or the caches of its process is gone for the next one, and one that fails
does not take the others' figures with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.suite.section import TIMEOUT_S, BenchSettings, Json
from benchmarks.suite.section_table import SECTIONS

_END_S = 90.0


def measure_section(name: str, settings: BenchSettings) -> Json:
    """Measures a section.

    Returns:
      `result`, or `error` where there is none; and the load average before, when, and how long.
    """
    load_average = os.getloadavg()[0]
    start_s = time.monotonic()
    facts: Json = {"load_average_before": round(load_average, 2)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.suite.section_process", name, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
            try:
                process.communicate(json.dumps(dataclasses.asdict(settings)), timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _end(process)
            except BaseException:
                _end(process)
                raise
        if process.returncode == 0:
            facts["result"] = json.loads(path.read_text())
        else:
            facts["error"] = f"ended with {process.returncode}"
    return facts | {"duration_s": round(time.monotonic() - start_s, 1)}


def _end(process: subprocess.Popen[str]) -> None:
    """Lets a section end what it started, then ends it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()


def main() -> None:
    """Runs one section."""
    name, path = sys.argv[1:]
    asked = json.load(sys.stdin)
    asked["train_options"] = tuple(asked["train_options"])
    result = SECTIONS[name].measure(BenchSettings(**asked))
    Path(path).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
