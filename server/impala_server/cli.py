"""impala-server: a learner server alone; actors join by address.

Needs no environment package: the environment's specification comes from the first actor, or from a
resumed run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from impala_common.config.checks import require_between
from impala_common.config.cli import TrainArguments, parse_train_config
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import configure_logging, resolve_log_format, write_line
from impala_common.process.standard_streams import prepare_standard_streams, reader_may_leave
from impala_common.rpc.limits import LONGEST_S
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory, RunLock, make_default_run
from impala_server.finished_notice import give_notice
from impala_server.interrupts import Interrupts
from impala_server.local.policy_server import LocalPolicyServer, require_policy_port
from impala_server.progress import ProgressDisplay
from impala_server.ranks.place import RankPlace
from impala_server.ranks.rank_settings import fit_to_rank, rank_folder
from impala_server.start_checks import (
    FinishedRun,
    describe_finished,
    find_finished,
    summarise_finished,
    validate_start,
)
from impala_server.supervisor import Supervisor

_DESCRIPTION = (
    "Learns from whatever actors send it: owns the network, rollout storage, the V-trace "
    "optimizer and the checkpoints of a run. Start actors with: impala-actor --server HOST:PORT "
    "--env ID"
)
_POLL_S = 0.2
_POLICY_SERVER_END_S = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of impala-server alone."""

    finished_notice_s: float = 0.0
    """Seconds in which actors that come after the end of the run are told that it has finished, so
    that they leave; at the start, too, with a run that has finished. 0: none."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_between("finished_notice_s", self.finished_notice_s, 0, LONGEST_S)


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
        show_version("impala-server", argv)
        arguments = parse_train_config("impala-server", argv, _DESCRIPTION, ServeOptions)
        level = "INFO" if arguments.verbose else "WARNING"
        configure_logging(level, "server", arguments.log_format)
        validate_start(arguments.config, arguments.resume)
        place = find_place(arguments)
        finished = find_finished(arguments.config, arguments.resume)
        if finished is not None:
            if place.leads:
                _serve_finished(arguments, finished)
            return OK
        require_policy_port(arguments.config)
        run_directory, lock = open_run(arguments) if place.leads else open_rank(arguments, place)
        with lock:
            _serve(arguments, run_directory, place)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def find_place(arguments: TrainArguments) -> RankPlace:
    """Returns this process's place among the learner ranks, as torchrun says.

    Raises:
      ConfigError: torchrun starts several ranks, and the run's folder is not named; or the settings
        ask for several, and torchrun does not start them.
    """
    place = RankPlace.from_torchrun(os.environ)
    num_ranks = arguments.config.ranks.learner_ranks
    if place.is_alone and num_ranks > 1:
        raise ConfigError(
            "--learner-ranks",
            num_ranks,
            "1 without torchrun",
            f"start the ranks with: torchrun --nproc-per-node {num_ranks} -m impala_server ...",
        )
    if not place.is_alone and arguments.run_dir is None and arguments.resume is None:
        raise ConfigError("--run-dir", "", "named with torchrun", "all ranks must know the folder")
    return place


def open_rank(arguments: TrainArguments, place: RankPlace) -> tuple[RunDirectory, RunLock]:
    """Returns the folder of a rank other than 0, and its held lock."""
    path = arguments.resume or arguments.run_dir
    assert path is not None
    run_directory = rank_folder(RunDirectory(path), place.rank)
    return run_directory, run_directory.lock()


def open_run(arguments: TrainArguments) -> tuple[RunDirectory, RunLock]:
    """Returns the run's folder, created if need be, and its held lock.

    Raises:
      ConfigError: --run-dir names a run that exists already (go on with --resume), or the folder
        cannot be made.
      RunInUseError: another process works in it.
    """
    config = arguments.config
    path = arguments.resume or arguments.run_dir
    if path is None:
        run_directory = make_default_run(config.environment.env or "run", config.job.tag)
        return run_directory, run_directory.lock()
    run_directory = RunDirectory(path)
    if arguments.resume is None and run_directory.holds_run():
        raise ConfigError(
            "--run-dir",
            str(path),
            "a new folder",
            f"it holds a run; go on with --resume {shlex.quote(str(path))}",
        )
    lock = run_directory.lock()
    if arguments.resume is None:  # settings of a start that failed
        with run_directory.written():
            run_directory.config_path.unlink(missing_ok=True)
    return run_directory, lock


def _serve_finished(arguments: TrainArguments, finished: FinishedRun) -> None:
    """Reports that the run has finished: on the terminal and to actors."""
    assert arguments.resume is not None
    config, run = arguments.config, RunDirectory(arguments.resume)
    write_line("info", describe_finished(run.path, finished))
    with Interrupts() as interrupts:
        if arguments.extra.finished_notice_s:
            with run.lock():
                give_notice(config, run, arguments.extra.finished_notice_s, interrupts.is_set)
    if arguments.json:
        sys.stdout.write(json.dumps(summarise_finished(run.path, finished)) + "\n")


def _serve(arguments: TrainArguments, run_directory: RunDirectory, place: RankPlace) -> None:
    config = arguments.config if place.is_alone else fit_to_rank(arguments.config, place)
    if config.optimizer.when_diverged == "auto":  # a server waits for an administrator
        optimizer = dataclasses.replace(config.optimizer, when_diverged="pause")
        config = dataclasses.replace(config, optimizer=optimizer)
    level, log_format = "INFO" if arguments.verbose else "WARNING", arguments.log_format
    supervisor = Supervisor(config, run_directory, level, log_format, place=place)
    title = f"learner of {run_directory.path}"
    console = Console(stderr=True, quiet=arguments.quiet)
    is_json = resolve_log_format(log_format) == "json"
    display = ProgressDisplay(config.job.total_steps, title, console, is_json=is_json)
    policy_server: LocalPolicyServer | None = None
    with Interrupts() as interrupts, display:
        try:
            supervisor.start()
            address = supervisor.wait_until_bound()
            if config.policy_server.policy_port and place.leads:
                policy_server = LocalPolicyServer(config, run_directory, address)
                policy_server.start()
            env = config.environment.env or "ID"
            display.message(f"listening on {address}: impala-actor --server {address} --env {env}")
            if supervisor.prometheus_address is not None:
                display.message(f"metrics at http://{supervisor.prometheus_address}/metrics")
            while (status := supervisor.poll(_POLL_S)) is not None:
                display.update(status)
                if policy_server is not None:
                    _check(policy_server, display)
                if interrupts.is_set():
                    display.message("stopping: finishing the update and writing a checkpoint")
                    break
        finally:
            if policy_server is not None and supervisor.status.reason != "finished":
                supervisor.request_stop()  # at once: the time it may take counts from here
                policy_server.terminate()
            supervisor.close(interrupts.is_set)
            if policy_server is not None:  # at the end of a run it has told its clients and ends
                policy_server.join(_POLICY_SERVER_END_S)
            display.update(supervisor.status)
        supervisor.raise_if_incomplete()
        status = supervisor.status
        notice_s = arguments.extra.finished_notice_s
        if status.reason == "finished" and notice_s and place.leads:
            give_notice(config, run_directory, notice_s, interrupts.is_set)
    if arguments.json and place.leads:
        summary = {
            "run": str(run_directory.path),
            "reason": status.reason or None,
            "steps": status.metrics.get(metrics.STEPS, 0),
            "updates": status.metrics.get(metrics.UPDATES, 0),
            "checkpoint": status.last_checkpoint or None,
        }
        sys.stdout.write(json.dumps(summary) + "\n")


def _check(policy_server: LocalPolicyServer, display: ProgressDisplay) -> None:
    """Replaces the policy server if it died; shows its address once."""
    was_open = policy_server.address is not None
    policy_server.check()
    if policy_server.address is not None and not was_open:
        address = policy_server.address
        display.message(
            f"policy server at {address}: impala-thin-actor --server {address} --env ID"
        )
