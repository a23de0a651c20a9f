"""What single settings are worth: `python -m benchmarks.studies.ablations --study passes`.

Trains variants of a preset, each with the same seeds, through impala-train; variants of a study
differ in the named settings only. A study's result is docs/results/ablations/STUDY.json, written
after each run, and docs/results/ablations.md is made of them. A run that is in the file is not made
again. Seeds are those of tuning (from 0), since presets were chosen with such comparisons.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys

import tyro

from benchmarks.suite import ablations_page
from benchmarks.suite.ablation_studies import STUDIES
from benchmarks.suite.machine import read_runs, save
from benchmarks.suite.training_run import Row, train_seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationArguments:
    """Trains the variants of one study."""

    study: str
    """Study of benchmarks/suite/ablation_studies.py."""
    num_seeds: int = 3
    """Seeds of each variant, from 0."""


def main() -> None:
    """Runs a study, seed by seed, so that a study that is broken off compares all variants."""
    arguments = tyro.cli(AblationArguments, prog="python -m benchmarks.studies.ablations")
    if arguments.study not in STUDIES:
        raise SystemExit(f"error: no study {arguments.study!r}; there are {', '.join(STUDIES)}")
    study = STUDIES[arguments.study]
    runs: list[Row] = read_runs(f"ablations/{arguments.study}")
    for seed in range(arguments.num_seeds):
        for variant, text in study.variants.items():
            options = ["--env", study.env, "--total-steps", str(study.total_steps)]
            options += ["--eval-episodes", "50", *shlex.split(text)]
            if any(row["seed"] == seed and row["options"] == options for row in runs):
                continue
            row = {"variant": variant, **train_seed(options, seed, study.bar)}
            del row["curve"]
            runs.append(row)
            command = shlex.join(["python", "-m", "benchmarks.studies.ablations", *sys.argv[1:]])
            save(f"ablations/{arguments.study}", {"command": command, "runs": runs})
            print(
                f"{variant:<28} seed {seed} return {row['return_mean']:.2f} "
                f"lag {row['policy_lag_mean']:.1f} {row['training_time_s']:.0f} s",
                flush=True,
            )
    ablations_page.main()


if __name__ == "__main__":
    main()
