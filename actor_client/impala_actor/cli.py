"""impala-actor: joins a run from this or any other machine.

Imports torch only after the arguments have been parsed, so that --help and errors are fast.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

import tyro

from impala_actor.acting.actor_config import ActorConfig
from impala_actor.acting.signal_guard import guard_signals
from impala_actor.acting.stop_signals import StopSignals, end_process, stop_without_parent
from impala_common.errors import ImpalaError
from impala_common.process import failpoints
from impala_common.process.allocator import keep_large_buffers
from impala_common.process.cuda_probe import require_device
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import configure_logging, write_line
from impala_common.process.own_modules import search_working_directory
from impala_common.process.passed_objects import split_objects_option
from impala_common.process.standard_streams import prepare_standard_streams
from impala_common.rpc.addresses import host_of

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
        show_version("impala-actor", argv)
        objects_fd, argv = split_objects_option(argv)
        config = tyro.cli(
            ActorConfig, prog="impala-actor", args=list(argv), config=(tyro.conf.OmitArgPrefixes,)
        )
        configure_logging(config.log_level, "actor", config.log_format)
        failpoints.arm_from_environment(host_of(config.server))
        stop = StopSignals()
        if config.exit_with_parent:
            stop_without_parent(stop)
        _act(config, stop, objects_fd)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _act(config: ActorConfig, stop: StopSignals, objects_fd: int | None) -> None:
    require_device("--device", config.device)
    # numpy's matrix products are small here: further threads would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(config.torch_threads))
    keep_large_buffers()
    from impala_actor.environments.factory import validate_environment_id

    config.with_absolute_paths().security.make_credentials(config.server)  # its files, in time
    if objects_fd is None:  # else objects may bring the id
        validate_environment_id(config.env, config.environment)
    import torch

    from impala_actor.acting.actor_loop import Actor

    torch.set_num_threads(config.torch_threads)
    if objects_fd is not None:
        from impala_actor.acting.passed_objects import register_inherited

        register_inherited(objects_fd)
        validate_environment_id(config.env, config.environment)
    actor = Actor(config.with_absolute_paths(), stop)
    _LOG.info("actor %s plays %s for %s", actor.actor_id, config.env, config.server)
    stop.begin(actor.abandon)
    actor.run()
    _LOG.info("played %d steps; messages by verdict: %s", actor.num_steps, actor.outcomes)
