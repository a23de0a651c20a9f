"""impala-evaluator: evaluates the weights of a run while it trains.

Imports torch only after the arguments have been parsed, so that --help and errors are fast.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from impala_actor.acting.signal_guard import guard_signals
from impala_actor.acting.stop_signals import StopSignals, end_process, stop_without_parent
from impala_common.config.checks import (
    require,
    require_at_least,
    require_between,
    require_own_model,
)
from impala_common.config.environment_options import validate_env_kwargs, validate_env_wrapper
from impala_common.errors import ImpalaError
from impala_common.process.absolute_paths import absolute_address, absolute_path
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import LogFormat, configure_logging, write_line
from impala_common.process.passed_objects import split_objects_option
from impala_common.process.standard_streams import prepare_standard_streams
from impala_common.rpc.addresses import require_server_address

_LOG = logging.getLogger(__name__)
_LOWEST_PRIORITY = 19


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatorArguments:
    """Plays episodes with weights that the learner sets aside, frozen, and says how they did.

    The learner decides when (--eval-interval-steps) and how many. Runs at the lowest priority by
    default. May start before the learner and leave at any time. Ends with 0 when the run has
    finished or on SIGTERM or Ctrl-C, 69 when the learner cannot be reached in time, 77 when TLS or
    token do not fit, 78 when environment or network (--env, --model) cannot be made or do not fit
    the run.
    """

    server: str
    """Address of the learner, HOST:PORT or unix:PATH."""
    env: str
    """Environment id; spaces as the run's, such as CartPole-v1 or module:MyEnv-v0."""
    model: Annotated[str, tyro.conf.arg(metavar="MODULE:CLASS")] = ""
    """The network of your own that the run trains, as the learner was started with it; the class
    must be here, too: code is never sent. Empty: the run trains one that comes with impala-rl."""
    evaluator_id: str = ""
    """Name of this evaluator, unique in the run; empty: host, process and a random part."""
    num_envs: int = 0
    """Environment slots, the same number of episodes each; 0: ten."""
    env_backend: Literal["auto", "entry-point", "sync", "async", "ale", "envpool"] = "auto"
    """How environments are vectorised."""
    env_kwargs: str = ""
    """Arguments for the environment, a JSON object such as '{"is_slippery": false}'."""
    env_wrapper: tuple[str, ...] = ()
    """Wrappers around each environment, the first innermost: module:Wrapper, such as
    minigrid.wrappers:ImgObsWrapper. With these or --env-kwargs, --env-backend auto is sync."""
    record_dir: str = ""
    """Folder for videos of what is judged, one episode each: DIR/videos, and DIR/tensorboard for
    TensorBoard; the newest 20 stay. Needs the extra `video`. Empty: none."""
    record_every: int = 1
    """With --record-dir: the first evaluation is filmed, and then every so many."""
    nice: int = _LOWEST_PRIORITY
    """How far to give way to other processes for the CPU, 0 (not at all) to 19."""
    ca_file: str = ""
    """CA that the learner's certificate comes from (PEM); empty: no TLS."""
    token_file: str = ""
    """File of the actor token, readable by its owner only; empty: none is sent."""
    client_cert: str = ""
    """Certificate to show the learner (PEM, mutual TLS)."""
    client_key: str = ""
    """Its private key (PEM)."""
    server_name: str = ""
    """Name the learner's certificate is for; empty: the host in --server."""
    connect_timeout_s: float = 0.0
    """Seconds to wait for a learner that cannot be reached before giving up; 0: for ever."""
    heartbeat_file: str = ""
    """File to beat into about once a second while the evaluator moves, for impala-health
    --actor-file; empty: none."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Log details, a line for each evaluation among them."""
    log_format: LogFormat = "auto"
    """How log records look on stderr; auto: text on a terminal, JSON lines elsewhere."""
    exit_with_parent: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """End when the process that started this one is gone."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_server_address("--server", self.server)
        require("--env", self.env, bool(self.env), "an environment id")
        if self.model:
            require_own_model("--model", self.model)
        require_at_least("--num-envs", self.num_envs, 0)
        validate_env_kwargs("--env-kwargs", self.env_kwargs)
        validate_env_wrapper("--env-wrapper", self.env_wrapper)
        require_at_least("--record-every", self.record_every, 1)
        require_between("--nice", self.nice, 0, _LOWEST_PRIORITY)
        require_at_least("--connect-timeout-s", self.connect_timeout_s, 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    guard_signals(signal.SIGINT, signal.SIGTERM)
    code = run(sys.argv[1:] if argv is None else argv)
    end_process(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        show_version("impala-evaluator", argv)
        objects_fd, argv = split_objects_option(argv)
        arguments = tyro.cli(EvaluatorArguments, prog="impala-evaluator", args=list(argv))
        level = logging.INFO if arguments.verbose else logging.WARNING
        configure_logging(level, "evaluator", arguments.log_format)
        stop = StopSignals()
        if arguments.exit_with_parent:
            stop_without_parent(stop)
        with contextlib.suppress(OSError):
            os.nice(arguments.nice)
        _evaluate(arguments, stop, objects_fd)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _evaluate(arguments: EvaluatorArguments, stop: StopSignals, objects_fd: int | None) -> None:
    import torch

    from impala_actor.acting.learner_client import default_actor_id
    from impala_actor.environments.factory import validate_environment_id
    from impala_actor.evaluation.evaluator_loop import Evaluator, EvaluatorConfig
    from impala_common.config import EnvironmentConfig
    from impala_common.rpc.security import ClientSecurity

    torch.set_num_threads(1)
    if arguments.record_dir:
        from impala_actor.environments.rendering import prepare_headless

        prepare_headless()
    if objects_fd is not None:
        from impala_actor.acting.passed_objects import register_inherited

        register_inherited(objects_fd)
    validate_environment_id(
        arguments.env,
        EnvironmentConfig(
            env=arguments.env,
            env_backend=arguments.env_backend,
            env_kwargs=arguments.env_kwargs,
            env_wrapper=arguments.env_wrapper,
        ),
    )
    config = EvaluatorConfig(
        server=absolute_address(arguments.server),
        env=arguments.env,
        evaluator_id=arguments.evaluator_id or default_actor_id(),
        num_envs=arguments.num_envs,
        env_backend=arguments.env_backend,
        env_kwargs=arguments.env_kwargs,
        env_wrapper=arguments.env_wrapper,
        model=arguments.model,
        record_dir=absolute_path(arguments.record_dir),
        record_every=arguments.record_every,
        connect_timeout_s=arguments.connect_timeout_s,
        heartbeat_file=absolute_path(arguments.heartbeat_file),
        security=ClientSecurity(
            ca_file=absolute_path(arguments.ca_file),
            token_file=absolute_path(arguments.token_file),
            client_cert=absolute_path(arguments.client_cert),
            client_key=absolute_path(arguments.client_key),
            server_name=arguments.server_name,
        ),
    )
    evaluator = Evaluator(config, stop)
    stop.begin(evaluator.abandon)
    evaluator.run()
    _LOG.info("%d evaluations", evaluator.num_evaluations)


if __name__ == "__main__":
    main()
