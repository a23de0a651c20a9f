"""impala-server: a learner server alone; actors join by address.

Needs no environment package: what the environment looks like comes from the
first actor, or from the run when it goes on.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from impala_common.config.cli import TrainArguments, parse_train_config
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.logs import configure_logging, resolve_log_format, write_line
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory, RunLock, default_run_path
from impala_server.interrupts import Interrupts
from impala_server.progress_display import ProgressDisplay
from impala_server.supervisor import Supervisor

_DESCRIPTION = (
    "Learns from whatever actors send it: owns the network, rollout storage, the V-trace "
    "optimizer and the checkpoints of a run. Start actors with: impala-actor --server HOST:PORT "
    "--env ID"
)
_POLL_S = 0.2


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        arguments = parse_train_config("impala-server", argv, _DESCRIPTION)
        level = "INFO" if arguments.verbose else "WARNING"
        configure_logging(level, "server", arguments.log_format)
        run_directory, lock = open_run(arguments)
        with lock:
            _serve(arguments, run_directory)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def open_run(arguments: TrainArguments) -> tuple[RunDirectory, RunLock]:
    """Returns the run's folder, created if need be, and its held lock.

    Raises:
      ConfigError: --run-dir names a run that exists already: go on with --resume.
      RunInUseError: another process works in it.
    """
    config = arguments.config
    path = arguments.resume or arguments.run_dir
    if path is None:
        path = default_run_path(config.environment.env or "run", config.job.tag)
    run_directory = RunDirectory(path)
    if arguments.resume is None and run_directory.holds_run():
        raise ConfigError(
            "--run-dir", str(path), "a new folder", f"it holds a run; go on with --resume {path}"
        )
    return run_directory, run_directory.lock()


def _serve(arguments: TrainArguments, run_directory: RunDirectory) -> None:
    config = arguments.config
    if config.optimizer.when_diverged == "auto":  # nobody waits for this command to end
        optimizer = dataclasses.replace(config.optimizer, when_diverged="pause")
        config = dataclasses.replace(config, optimizer=optimizer)
    level, log_format = "INFO" if arguments.verbose else "WARNING", arguments.log_format
    supervisor = Supervisor(config, run_directory, level, log_format)
    title = f"learner of {run_directory.path}"
    console = Console(stderr=True, quiet=arguments.quiet)
    is_json = resolve_log_format(log_format) == "json"
    display = ProgressDisplay(config.job.total_steps, title, console, is_json=is_json)
    with Interrupts() as interrupts, display:
        try:
            supervisor.start()
            address = supervisor.wait_until_bound()
            env = config.environment.env or "ID"
            display.message(f"listening on {address}: impala-actor --server {address} --env {env}")
            if supervisor.prometheus_address is not None:
                display.message(f"metrics at http://{supervisor.prometheus_address}/metrics")
            while (status := supervisor.poll(_POLL_S)) is not None:
                display.update(status)
                if interrupts.is_set():
                    display.message("stopping: finishing the update and writing a checkpoint")
                    break
        finally:
            supervisor.close()
            display.update(supervisor.status)
    supervisor.raise_if_killed()
    status = supervisor.status
    if arguments.json:
        summary = {
            "run": str(run_directory.path),
            "reason": status.get("reason"),
            "steps": status.get(metrics.STEPS, 0),
            "updates": status.get(metrics.UPDATES, 0),
            "checkpoint": status.get("last_checkpoint"),
        }
        sys.stdout.write(json.dumps(summary) + "\n")
