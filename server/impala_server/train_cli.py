"""impala-train: a learner server and actors over gRPC on this machine; the main command.

The command itself only starts, shows and ends: learner, front end and actors
are processes. Afterwards the frozen weights are evaluated by impala-eval.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from impala_common.config.cli import TrainArguments, parse_train_config
from impala_common.errors import ImpalaError
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.logs import LogFormat, configure_logging, write_line
from impala_common.run import metrics
from impala_common.run.checkpoint_manifest import BEST
from impala_common.run.run_directory import RunDirectory
from impala_server.cli import open_run
from impala_server.interrupts import Interrupts
from impala_server.local.actors import validate_local_run
from impala_server.local.training import LocalTraining
from impala_server.local.tuning import choose_local_run, find_machine_facts
from impala_server.progress_display import ProgressDisplay

_DESCRIPTION = (
    "Trains: starts a learner server and actors on this machine, shows progress, writes "
    "checkpoints and metrics, and evaluates the result. Ctrl-C stops in order; --resume goes on."
)
_POLL_S = 0.2
_EVALUATION_TIMEOUT_S = 3600.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        arguments = parse_train_config("impala-train", argv, _DESCRIPTION, default_port=0)
        level = "INFO" if arguments.verbose else "WARNING"
        configure_logging(level, "train", _log_format(arguments))
        validate_local_run(arguments.config)
        arguments = _fit_to_machine(arguments)
        run_directory, lock = open_run(arguments)
        with lock:
            _train_and_evaluate(arguments, run_directory)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _fit_to_machine(arguments: TrainArguments) -> TrainArguments:
    """Returns the arguments with actors, slots and threads chosen where nobody named them."""
    choice = choose_local_run(arguments.config, arguments.named, find_machine_facts())
    if choice.text and not arguments.quiet:
        write_line("info", choice.text)
    return dataclasses.replace(arguments, config=choice.config)


def _log_format(arguments: TrainArguments) -> LogFormat:
    """This command is a person's, also where its lines are piped on: auto is text."""
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
        if status.get("reason") == "finished" and config.job.eval_episodes:
            if not arguments.quiet:
                console.print(f"evaluating {config.job.eval_episodes} episodes ...", style="dim")
            evaluation = _evaluate(run_directory, config.job.eval_episodes, interrupts)
            if evaluation is not None:
                result["evaluation"] = evaluation
    _print_summary(console, result, run_directory)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")


def _train(
    arguments: TrainArguments,
    run_directory: RunDirectory,
    display: ProgressDisplay,
    interrupts: Interrupts,
) -> dict[str, Any]:  # Any: JSON
    """Trains to the end or to an interrupt; returns the learner's last status."""
    level = "INFO" if arguments.verbose else "WARNING"
    training = LocalTraining(arguments.config, run_directory, level, _log_format(arguments))
    return training.run(display, interrupts.is_set)


def _evaluate(
    run_directory: RunDirectory, num_episodes: int, interrupts: Interrupts
) -> dict[str, Any] | None:  # Any: JSON
    """Returns the evaluation; None if it was interrupted."""
    command = [sys.executable, "-m", "impala_actor.eval_cli", str(run_directory.path)]
    command += ["--episodes", str(num_episodes), "--json"]
    deadline_s = time.monotonic() + _EVALUATION_TIMEOUT_S
    with subprocess.Popen(  # noqa: S603 (our own module)
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        out = err = None
        while out is None:
            try:
                out, err = process.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                if interrupts.is_set() or time.monotonic() > deadline_s:
                    process.kill()
    if interrupts.is_set():
        return None
    if process.returncode != OK:
        raise ImpalaError(
            f"training is complete, but its evaluation failed: {(err or '').strip()[-500:]}"
        )
    evaluation: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return evaluation


def _summarise(
    status: dict[str, Any], run_directory: RunDirectory, wall_time_s: float
) -> dict[str, Any]:
    return {
        "run": str(run_directory.path),
        "reason": status.get("reason", "failed"),
        "steps": status.get(metrics.STEPS, 0),
        "updates": status.get(metrics.UPDATES, 0),
        "episodes": status.get(metrics.EPISODES, 0),
        "return_mean": status.get(metrics.RETURN_MEAN),
        "wall_time_s": round(wall_time_s, 2),
        "training_time_s": status.get(metrics.TIME_S),
        "checkpoint": status.get("last_checkpoint"),
        "best_return_mean": status.get(metrics.EVALUATION_BEST),
        "best_steps": status.get(metrics.EVALUATION_BEST_STEPS),
    }


def _print_summary(console: Console, result: dict[str, Any], run_directory: RunDirectory) -> None:
    path = run_directory.path
    evaluation = result.get("evaluation")
    if evaluation is not None:
        interval = ""
        if evaluation["confidence_low"] is not None:
            low, high = evaluation["confidence_low"], evaluation["confidence_high"]
            interval = (
                f" ± {evaluation['standard_error']:.2f} (95 % interval {low:.2f} to {high:.2f})"
            )
        console.print(
            f"[bold]return {evaluation['return_mean']:.2f}[/bold]{interval} over "
            f"{evaluation['num_episodes']} episodes with frozen weights",
            soft_wrap=True,
        )
    console.print(
        f"{result['reason']} after {result['steps']:,} steps, {result['updates']:,} updates, "
        f"{result['wall_time_s']:.1f} s"
    )
    places: dict[str, object] = {
        "run": path,
        "checkpoint": run_directory.checkpoints_path / str(result["checkpoint"]),
        "metrics": run_directory.metrics_path,
        "TensorBoard": f"tensorboard --logdir {run_directory.tensorboard_path}",
    }
    if result["best_steps"] is not None:
        judged = f"return {result['best_return_mean']:.2f} at step {result['best_steps']:,}"
        places["best"] = f"{run_directory.checkpoints_path / BEST} ({judged})"
    if result["reason"] != "finished":
        places["go on with"] = f"impala-train --resume {path}"
    else:
        places["evaluate"] = f"impala-eval {path} --plot curve.png"
    for name, place in places.items():
        console.print(f"{name:<12}{place}", highlight=False, soft_wrap=True)
