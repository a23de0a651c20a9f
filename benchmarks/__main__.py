"""`make bench`: every section in one run; writes docs/results/performance.json and the page.

`--quick` tries all of it in a minute or two and writes nothing; `--only parts system` measures some
sections anew and keeps the others, each with the machine and the commit it was measured at.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from typing import Annotated

import tyro

from benchmarks.suite.machine import RESULTS, describe_machine
from benchmarks.suite.performance_page import render_page
from benchmarks.suite.section import BenchSettings, Json
from benchmarks.suite.section_process import measure_section
from benchmarks.suite.section_table import SECTIONS
from benchmarks.suite.targets import load_targets

JSON_PATH = RESULTS / "performance.json"
PAGE_PATH = RESULTS.parent / "performance.md"
GPU_PATH = RESULTS / "gpu.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchArguments:
    """Measures speed, side by side in one run, and writes docs/performance.md."""

    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Try everything for seconds; the figures mean nothing and are only printed."""
    render: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure nothing; write the page again, as after a change of targets.toml."""
    only: tuple[str, ...] = ()
    """Sections to measure anew; the others keep their figures. Empty: all of them."""
    train_options: str = ""
    """Options of impala-train to measure beside the default ones, in one string."""
    num_windows: int = 6
    """Windows of each measurement."""
    window_s: float = 10.0
    """Seconds of a window of whole training."""
    warm_up_s: float = 10.0
    """Seconds of training before the first of them."""

    @property
    def settings(self) -> BenchSettings:
        """What sections are told."""
        options = tuple(shlex.split(self.train_options))
        if self.quick:
            return BenchSettings(
                is_quick=True,
                num_windows=1,
                window_s=2.0,
                part_window_s=0.05,
                warm_up_s=0.0,
                train_options=options,
            )
        return BenchSettings(
            num_windows=self.num_windows,
            window_s=self.window_s,
            warm_up_s=self.warm_up_s,
            train_options=options,
        )


def main() -> None:
    """Measures, writes, prints the page."""
    arguments = tyro.cli(BenchArguments, prog="python -m benchmarks")
    unknown = set(arguments.only) - set(SECTIONS)
    if unknown:
        raise SystemExit(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    is_kept = bool(arguments.only or arguments.render) and JSON_PATH.exists()
    sections: dict[str, Json] = json.loads(JSON_PATH.read_text())["sections"] if is_kept else {}
    if not arguments.render:
        _measure(arguments, sections)
    sections = {name: sections[name] for name in SECTIONS if name in sections}
    gpu = json.loads(GPU_PATH.read_text()) if GPU_PATH.exists() else None
    page = render_page(sections, load_targets(), gpu)
    print(page)
    if not arguments.quick:
        _save(sections)
        PAGE_PATH.write_text(page)
        print(f"wrote {PAGE_PATH} and {JSON_PATH}")
        print("for the README's table: python -m benchmarks.suite.report")
    failed = [name for name, section in sections.items() if "error" in section]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _measure(arguments: BenchArguments, sections: dict[str, Json]) -> None:
    """Measures and puts the results into `sections`."""
    settings = arguments.settings
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    machine = describe_machine()
    for name in SECTIONS:
        if arguments.only and name not in arguments.only:
            continue
        print(f"--- {name}", flush=True)
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        facts = measure_section(name, settings)
        sections[name] = {"command": command, "machine": machine, "when_utc": when, **facts}
        if "result" in facts:  # of this run only: a bound holds beside what was measured with it
            earlier = {**settings.earlier, name: facts["result"]}
            settings = dataclasses.replace(settings, earlier=earlier)
        print(f"{name}: {facts['duration_s']} s, {facts.get('error', 'done')}", flush=True)
        if not arguments.quick:
            _save(sections)  # minutes of measuring: an end by Ctrl-C costs one section


def _save(sections: dict[str, Json]) -> None:
    JSON_PATH.write_text(json.dumps({"sections": sections}, indent=1) + "\n")


if __name__ == "__main__":
    main()
