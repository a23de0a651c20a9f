"""impala-eval: judges runs by episodes with frozen weights, and draws their learning curves.

The console script of that name. Importing this file is cheap: torch and
matplotlib are imported when the command line has been found good. Prints (noqa T201), as
commands do.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from impala_common import exit_codes
from impala_common.config.checks import require, require_at_least
from impala_common.errors import ImpalaError
from impala_common.logs import configure_logging

if TYPE_CHECKING:
    from impala_actor.run_evaluation import RunEvaluation

PROGRAM = "impala-eval"
DESCRIPTION = """Play episodes with the newest checkpoint of each run, weights frozen.

Every environment slot plays the same number of episodes, so that short episodes are not favoured;
the number asked for is rounded up accordingly."""


def _option(metavar: str, hint: str) -> object:
    """Returns a tyro annotation with what --help shows of an option."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Command line of impala-eval."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, _option("RUN [RUN ...]", "")]
    """Folders of runs, finished or still training."""
    episodes: int = 100
    """Episodes per run; 0: none, for --plot alone."""
    greedy: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take the most probable action in place of drawing one."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object per run and line."""
    seed: int = 0
    """Seed of environments and draws."""
    num_slots: int = 0
    """Environment slots that play side by side, the same number of episodes each; 0: up to 16, as
    many as divide the episodes evenly."""
    env: Annotated[str | None, _option("ID", "(default: the run's)")] = None
    """Judge on this environment in place of the run's; spaces must be the same."""
    checkpoint: Annotated[str | None, _option("NAME", "(default: the newest good one)")] = None
    """Name of the checkpoint to judge, such as step-000000200000."""
    plot: Annotated[Path | None, _option("FILE", "(default: none)")] = None
    """Draw the learning curves of all runs into this file (.png, .svg, .pdf)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    arguments = tyro.cli(EvalArguments, prog=PROGRAM, description=DESCRIPTION, args=argv)
    if not arguments.runs:
        print("error: name the folder of at least one run; see --help", file=sys.stderr)  # noqa: T201
        return exit_codes.USAGE
    configure_logging(logging.WARNING, PROGRAM)
    try:
        _validate(arguments)
        results = _evaluate_all(arguments)
        if arguments.plot is not None:
            from impala_actor.plotting import plot_runs

            plot_runs(arguments.runs, arguments.plot)
    except ImpalaError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return exit_codes.exit_code_of(error)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    _show(results, arguments)
    return exit_codes.OK


def _validate(arguments: EvalArguments) -> None:
    require_at_least("--episodes", arguments.episodes, 0)
    require_at_least("--seed", arguments.seed, 0)
    require_at_least("--num-slots", arguments.num_slots, 0)
    require(
        "--episodes",
        arguments.episodes,
        arguments.episodes > 0 or arguments.plot is not None,
        "at least 1, or 0 with --plot",
    )
    require(
        "--plot",
        str(arguments.plot),
        arguments.plot is None or importlib.util.find_spec("matplotlib") is not None,
        "left out here",
        "matplotlib is not installed (container images leave it out)",
    )


def _evaluate_all(arguments: EvalArguments) -> list[RunEvaluation]:
    if not arguments.episodes:
        return []
    import torch

    from impala_actor.run_evaluation import evaluate_run

    torch.set_num_threads(1)  # batches are small: more threads only wait for each other
    return [
        evaluate_run(
            run,
            num_episodes=arguments.episodes,
            num_slots=arguments.num_slots or _choose_num_slots(arguments.episodes),
            seed=arguments.seed,
            is_greedy=arguments.greedy,
            env=arguments.env,
            checkpoint_name=arguments.checkpoint,
        )
        for run in arguments.runs
    ]


def _show(results: Sequence[RunEvaluation], arguments: EvalArguments) -> None:
    if arguments.json:
        for result in results:
            print(json.dumps(result.to_json(), allow_nan=False))  # noqa: T201
    elif sys.stdout.isatty():
        _print_table(results)
    else:
        for result in results:
            print(_describe(result))  # noqa: T201


def _choose_num_slots(num_episodes: int) -> int:
    """Returns 8 to 16 slots that divide the episodes evenly, or 16 (then a few more are played)."""
    even = [slots for slots in range(16, 7, -1) if num_episodes % slots == 0]
    return even[0] if even else 16


def _describe(result: RunEvaluation) -> str:
    """Returns a result as one line of plain text."""
    evaluation = result.evaluation
    mode = "greedy" if evaluation.is_greedy else "sampled"
    cut = f", {evaluation.num_cut} CUT" if evaluation.num_cut else ""
    return (
        f"{result.run} {result.env} step {result.step}: return {evaluation.return_mean:.2f} "
        f"± {_format_error(result) or '?'} (95 % {_format_interval(result) or '?'}) "
        f"min {evaluation.return_min:g} max {evaluation.return_max:g} "
        f"length {evaluation.length_mean:.1f} ({evaluation.num_episodes} episodes, {mode}{cut})"
    )


def _format_interval(result: RunEvaluation) -> str:
    evaluation = result.evaluation
    if evaluation.confidence_low is None:
        return ""
    return f"{evaluation.confidence_low:.2f} to {evaluation.confidence_high:.2f}"


def _format_error(result: RunEvaluation) -> str:
    error = result.evaluation.standard_error
    return "" if error is None else f"{error:.2f}"


def _print_table(results: Sequence[RunEvaluation]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Evaluation with frozen weights", title_justify="left")
    for name in ("run", "environment"):
        table.add_column(name, overflow="fold")
    for name in (
        "step",
        "return",
        "std. error",
        "95 % interval",
        "min",
        "max",
        "length",
        "episodes",
    ):
        table.add_column(name, justify="right")
    table.add_column("actions")
    for result in results:
        evaluation = result.evaluation
        cut = f" ({evaluation.num_cut} cut)" if evaluation.num_cut else ""
        table.add_row(
            result.run,
            result.env,
            f"{result.step:,}",
            f"{evaluation.return_mean:.2f}",
            _format_error(result),
            _format_interval(result),
            f"{evaluation.return_min:g}",
            f"{evaluation.return_max:g}",
            f"{evaluation.length_mean:.1f}",
            f"{evaluation.num_episodes}{cut}",
            "greedy" if evaluation.is_greedy else "sampled",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
