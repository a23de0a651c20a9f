"""impala-train: a learner server and actors over gRPC on this machine; the main command.

The command starts the learner, the front end and actors as processes, shows progress and ends them.
Afterwards impala-eval evaluates the frozen weights.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from impala_common.config.cli import TrainArguments, parse_train_config
from impala_common.errors import ImpalaError
from impala_common.process.answering import run_to_its_end
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.installation import is_installed, show_version
from impala_common.process.logs import LogFormat, configure_logging, write_line
from impala_common.process.own_modules import python_command
from impala_common.process.standard_streams import prepare_standard_streams, reader_may_leave
from impala_common.run import metrics
from impala_common.run.checkpoint_manifest import BEST
from impala_common.run.return_text import show_return
from impala_common.run.run_directory import (
    RunDirectory,
    default_run_path,
    write_json_atomic,
)
from impala_common.spec.specs import EnvironmentSpec
from impala_server.cli import open_run
from impala_server.interrupts import Interrupts
from impala_server.local.actors import validate_local_run
from impala_server.local.environment_check import find_environment_spec, require_environment
from impala_server.local.listings import (
    describe_dry_run,
    describe_environments,
    describe_presets,
)
from impala_server.local.policy_server import require_policy_port
from impala_server.local.training import LocalTraining
from impala_server.local.tuning import choose_local_run, find_machine_facts
from impala_server.messages import LearnerStatus
from impala_server.progress import ProgressDisplay
from impala_server.start_checks import (
    FinishedRun,
    describe_finished,
    find_finished,
    summarise_finished,
    validate_start,
)

_DESCRIPTION = (
    "Trains: starts a learner server and actors on this machine, shows progress, writes "
    "checkpoints and metrics, and evaluates the result. Ctrl-C stops in order; --resume goes on."
)
_EVALUATION_TIMEOUT_S = 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of impala-train alone; each of them starts nothing."""

    list_presets: tyro.conf.FlagCreatePairsOff[bool] = False
    """List the presets, and end."""
    list_envs: str = dataclasses.field(default="", metadata={"metavar": "[PATTERN]"})
    """List the environments that are installed here, each with its preset, and end. PATTERN: a part
    of the id, or with * and ?."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show all settings, sizes, the memory needed and what would start, and end."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    code = OK
    with reader_may_leave():
        code = run(sys.argv[1:] if argv is None else argv)
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        show_version("impala-train", argv)
        if _show_listing(argv):
            return OK
        arguments = parse_train_config(
            "impala-train", argv, _DESCRIPTION, TrainOptions, default_port=0
        )
        level = "INFO" if arguments.verbose else "WARNING"
        configure_logging(level, "train", _log_format(arguments))
        validate_local_run(arguments.config)
        validate_start(arguments.config, arguments.resume)
        finished = find_finished(arguments.config, arguments.resume)
        if finished is not None and arguments.resume is not None:
            _tell_finished(arguments, arguments.resume, finished)
            return OK
        if arguments.extra.dry_run:
            _show_dry_run(arguments)
            return OK
        seen = require_environment(arguments.config.environment)
        require_policy_port(arguments.config)
        arguments = _fit_to_machine(arguments, seen)
        run_directory, lock = open_run(arguments)
        with lock:
            _train_and_evaluate(arguments, run_directory)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _show_listing(argv: Sequence[str]) -> bool:
    """Prints what --list-presets or --list-envs ask for; returns whether one of them was there."""
    if "--list-presets" in argv:
        sys.stdout.write(describe_presets())
        return True
    for position, word in enumerate(argv):
        option, _, pattern = word.partition("=")
        if option == "--list-envs":
            following = argv[position + 1] if position + 1 < len(argv) else "-"
            pattern = pattern or ("" if following.startswith("-") else following)
            sys.stdout.write(describe_environments(pattern or "*"))
            return True
    return False


def _show_dry_run(arguments: TrainArguments) -> None:
    environment = find_environment_spec(arguments.config.environment)
    facts = find_machine_facts()
    config = choose_local_run(arguments.config, arguments.named, facts, environment).config
    run = arguments.resume or arguments.run_dir
    run = run or default_run_path(config.environment.env, config.job.tag)
    sys.stdout.write(describe_dry_run(config, environment, str(run)))


def _fit_to_machine(arguments: TrainArguments, seen: EnvironmentSpec | None) -> TrainArguments:
    """Returns the arguments; chooses actors, slots and threads that the user did not set."""
    choice = choose_local_run(arguments.config, arguments.named, find_machine_facts(), seen)
    if choice.text and not arguments.quiet:
        write_line("info", choice.text)
    return dataclasses.replace(arguments, config=choice.config)


def _tell_finished(arguments: TrainArguments, run: Path, finished: FinishedRun) -> None:
    write_line("info", describe_finished(run, finished))
    if arguments.json:
        sys.stdout.write(json.dumps(summarise_finished(run, finished)) + "\n")


def _log_format(arguments: TrainArguments) -> LogFormat:
    """Returns text for auto, also in a pipe: a person runs this command."""
    return "text" if arguments.log_format == "auto" else arguments.log_format


def _train_and_evaluate(arguments: TrainArguments, run_directory: RunDirectory) -> None:
    config = arguments.config
    console = Console(stderr=True, quiet=arguments.quiet)
    start_s = time.monotonic()
    with Interrupts() as interrupts:
        title = f"impala-train {config.environment.env}"
        is_json = _log_format(arguments) == "json"
        with ProgressDisplay(config.job.total_steps, title, console, is_json=is_json) as display:
            status = _train(arguments, run_directory, display, interrupts)
        result = _summarise(status, run_directory, time.monotonic() - start_s)
        if status.reason == "finished" and config.job.eval_episodes:
            if not arguments.quiet:
                console.print(f"evaluating {config.job.eval_episodes} episodes ...", style="dim")
            evaluation = _evaluate(run_directory, config.job.eval_episodes, interrupts)
            if evaluation is not None:
                result["evaluation"] = evaluation
                _keep(evaluation, run_directory)
    _print_summary(console, result, run_directory)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")


def _train(
    arguments: TrainArguments,
    run_directory: RunDirectory,
    display: ProgressDisplay,
    interrupts: Interrupts,
) -> LearnerStatus:
    """Trains to the end or to an interrupt; returns the learner's last status."""
    level = "INFO" if arguments.verbose else "WARNING"
    training = LocalTraining(arguments.config, run_directory, level, _log_format(arguments))
    return training.run(display, interrupts.is_set)


def _evaluate(
    run_directory: RunDirectory, num_episodes: int, interrupts: Interrupts
) -> dict[str, Any] | None:  # Any: JSON
    """Returns the evaluation; None if it was interrupted."""
    command = [*python_command("impala_actor.eval_cli"), str(run_directory.path)]
    command += ["--episodes", str(num_episodes), "--json"]
    try:
        answer = run_to_its_end(command, _EVALUATION_TIMEOUT_S, interrupts.is_set)
    except TimeoutError as error:
        raise ImpalaError(
            f"training is complete, but its evaluation was given up: {error}"
        ) from None
    if interrupts.is_set():
        return None
    if answer.code != OK and not answer.out:  # else: its environment failed after the result
        raise ImpalaError(f"training is complete, but its evaluation failed: {answer.reason}")
    evaluation: dict[str, Any] = json.loads(answer.out.strip().splitlines()[-1])
    return evaluation


def _keep(evaluation: dict[str, Any], run_directory: RunDirectory) -> None:  # Any: JSON
    """Writes the evaluation; a disk that takes nothing costs its file, not what is shown of it."""
    try:
        write_json_atomic(run_directory.evaluation_path, evaluation)
    except OSError as error:
        path = run_directory.evaluation_path
        write_line("warning", f"warning: {path} could not be written: {error.strerror}")


def _summarise(
    status: LearnerStatus, run_directory: RunDirectory, wall_time_s: float
) -> dict[str, Any]:
    return {
        "run": str(run_directory.path),
        "reason": status.reason or "failed",
        "steps": status.metrics.get(metrics.STEPS, 0),
        "updates": status.metrics.get(metrics.UPDATES, 0),
        "episodes": status.metrics.get(metrics.EPISODES, 0),
        "return_mean": status.metrics.get(metrics.RETURN_MEAN),
        "wall_time_s": round(wall_time_s, 2),
        "training_time_s": status.metrics.get(metrics.TIME_S),
        "checkpoint": status.last_checkpoint or None,
        "best_return_mean": status.metrics.get(metrics.EVALUATION_BEST),
        "best_steps": status.metrics.get(metrics.EVALUATION_BEST_STEPS),
    }


def _print_summary(console: Console, result: dict[str, Any], run_directory: RunDirectory) -> None:
    path = run_directory.path
    evaluation = result.get("evaluation")
    if evaluation is not None:
        interval, cut = "", ""
        if evaluation["num_cut"]:
            cut = f", {evaluation['num_cut']} of them cut after {evaluation['length_max']:,} steps"
        if evaluation["num_lost"]:
            cut += f"; {evaluation['num_lost']} more ended with an exception of the environment"
        if evaluation["confidence_low"] is not None:
            low, high = evaluation["confidence_low"], evaluation["confidence_high"]
            error, low, high = (
                show_return(one, beside=evaluation["return_mean"])
                for one in (evaluation["standard_error"], low, high)
            )
            interval = f" ± {error} (95 % interval {low} to {high})"
        console.print(
            f"[bold]return {show_return(evaluation['return_mean'])}[/bold]{interval} over "
            f"{evaluation['num_episodes']} episodes with frozen weights{cut}",
            soft_wrap=True,
        )
    console.print(
        f"{result['reason']} after {result['steps']:,} steps, {result['updates']:,} updates, "
        f"{result['wall_time_s']:.1f} s"
    )
    places: dict[str, object] = {"run": path}
    if result["checkpoint"] is not None:  # else it was stopped before its learner began
        places["checkpoint"] = run_directory.checkpoints_path / result["checkpoint"]
    if run_directory.metrics_path.exists():
        places["metrics"] = run_directory.metrics_path
    if run_directory.tensorboard_path.is_dir() and is_installed("tensorboard"):
        logs = shlex.quote(str(run_directory.tensorboard_path))
        places["TensorBoard"] = f"tensorboard --logdir {logs}"
    if evaluation is not None and run_directory.evaluation_path.exists():
        places["evaluation"] = run_directory.evaluation_path
    if result["best_steps"] is not None:
        judged = (
            f"return {show_return(result['best_return_mean'])} at step {result['best_steps']:,}"
        )
        places["best"] = f"{run_directory.checkpoints_path / BEST} ({judged})"
    if result["reason"] != "finished":
        places["go on with"] = f"impala-train --resume {shlex.quote(str(path))}"
    else:
        places["evaluate"] = f"impala-eval {shlex.quote(str(path))} --plot curve.png"
    for name, place in places.items():
        console.print(f"{name:<12}{place}", highlight=False, markup=False, soft_wrap=True)
