"""impala-evaluator: evaluates the weights of a run while it trains.

Imports torch only after the arguments have been parsed, so that --help and errors are fast.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

import tyro

from impala_actor.acting.signal_guard import guard_signals
from impala_actor.acting.stop_signals import StopSignals, end_process, stop_without_parent
from impala_actor.evaluation.evaluator_config import EvaluatorConfig
from impala_common.errors import ImpalaError
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import configure_logging, write_line
from impala_common.process.own_modules import search_working_directory
from impala_common.process.passed_objects import split_objects_option
from impala_common.process.standard_streams import prepare_standard_streams

_LOG = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    search_working_directory(for_good=True)
    guard_signals(signal.SIGINT, signal.SIGTERM)
    code = run(sys.argv[1:] if argv is None else argv)
    end_process(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        show_version("impala-evaluator", argv)
        objects_fd, argv = split_objects_option(argv)
        config = tyro.cli(
            EvaluatorConfig,
            prog="impala-evaluator",
            args=list(argv),
            config=(tyro.conf.OmitArgPrefixes,),
        )
        configure_logging(config.log_level, "evaluator", config.log_format)
        stop = StopSignals()
        if config.exit_with_parent:
            stop_without_parent(stop)
        _evaluate(config, stop, objects_fd)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _evaluate(config: EvaluatorConfig, stop: StopSignals, objects_fd: int | None) -> None:
    from impala_actor.environments.factory import validate_environment_id

    config.with_absolute_paths().security.make_credentials(config.server)  # its files, in time
    if objects_fd is None:  # else objects may bring the id
        validate_environment_id(config.env, config.environment)
    with contextlib.suppress(OSError):
        os.nice(config.nice)  # from here on: a refusal should not wait for a busy machine
    import torch

    from impala_actor.evaluation.evaluator_loop import Evaluator

    torch.set_num_threads(1)
    if config.record_dir:
        from impala_actor.environments.rendering import prepare_headless

        prepare_headless()
    if objects_fd is not None:
        from impala_actor.acting.passed_objects import register_inherited

        register_inherited(objects_fd)
        validate_environment_id(config.env, config.environment)
    evaluator = Evaluator(config.with_absolute_paths(), stop)
    stop.begin(evaluator.abandon)
    evaluator.run()
    _LOG.info("%d evaluations", evaluator.num_evaluations)


if __name__ == "__main__":
    main()
