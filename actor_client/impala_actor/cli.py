"""impala-actor: joins a run from this or any other machine.

Imports torch only after the arguments have been parsed, so that --help and errors are fast.
"""

from __future__ import annotations

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
    require_own_model,
    require_positive,
    validate_device,
)
from impala_common.config.environment_options import validate_env_kwargs, validate_env_wrapper
from impala_common.config.job import InferenceBackendName
from impala_common.errors import ImpalaError
from impala_common.process import failpoints
from impala_common.process.absolute_paths import absolute_address, absolute_path
from impala_common.process.allocator import keep_large_buffers
from impala_common.process.cuda_probe import require_device
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import LogFormat, configure_logging, write_line
from impala_common.process.passed_objects import split_objects_option
from impala_common.process.standard_streams import prepare_standard_streams
from impala_common.rpc.addresses import host_of, require_server_address

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorArguments:
    """Plays an environment with the learner's newest weights and sends it the unrolls.

    May start before the learner and leave at any time. Ends with 0 when the run has finished
    or on SIGTERM or Ctrl-C, 69 when the learner cannot be reached in time, 75 when the environment
    fails again and again or does not return, 77 when TLS or token do
    not fit, 78 when environment or network (--env, --model) cannot be made or do not fit the run.
    """

    server: str
    """Address of the learner, HOST:PORT or unix:PATH."""
    env: str
    """Environment id, such as CartPole-v1, ALE/Pong-v5, MinAtar/Breakout-v1 or module:MyEnv-v0."""
    model: Annotated[str, tyro.conf.arg(metavar="MODULE:CLASS")] = ""
    """The network of your own that the run trains, as the learner was started with it; the class
    must be here, too: code is never sent. Empty: the run trains one that comes with impala-rl."""
    actor_id: str = ""
    """Name of this actor, unique in the run; empty: host, process and a random part."""
    num_envs: int = 0
    """Environment slots; 0: as many as the learner's configuration says (envs_per_actor)."""
    env_backend: Literal["auto", "entry-point", "sync", "async", "ale", "envpool"] = "auto"
    """How environments are vectorised."""
    env_kwargs: str = ""
    """Arguments for the environment, a JSON object such as '{"is_slippery": false}'."""
    env_wrapper: tuple[str, ...] = ()
    """Wrappers around each environment, the first innermost: module:Wrapper, such as
    minigrid.wrappers:ImgObsWrapper. With these or --env-kwargs, --env-backend auto is sync."""
    env_threads: int = 1
    """Threads of environments that are vectorised in native code."""
    device: str = "auto"
    """Device of the policy: auto (the CPU), cpu, cuda or cuda:N."""
    torch_threads: int = 1
    """CPU threads of the policy."""
    inference_backend: InferenceBackendName = "auto"
    """How the network is run: eager (torch, float32), numpy (networks for vectors), bfloat16
    (encoders), onnxruntime (extra onnx; seconds to prepare); auto: what of the first three a short
    measurement finds fastest, eager on a GPU and with lockstep."""
    compress: bool = True
    """Whether observations are compressed on the wire, where it pays."""
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
    env_timeout_s: float = 600.0
    """Seconds that the environment may take for one step or reset of all slots; then the actor ends
    with code 75, to be started again. 0: any time."""
    max_env_failures: int = 5
    """Exceptions of the environment in a row, with no good step between them, after which the
    actor ends with code 75. After each before, all slots are made anew."""
    heartbeat_file: str = ""
    """File to beat into about once a second while the actor moves, for impala-health
    --actor-file; empty: none."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Log details."""
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
        require_positive("--env-threads", self.env_threads)
        require_at_least("--env-timeout-s", self.env_timeout_s, 0)
        require_positive("--max-env-failures", self.max_env_failures)
        require_positive("--torch-threads", self.torch_threads)
        require_at_least("--connect-timeout-s", self.connect_timeout_s, 0)
        validate_device(self.device)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    guard_signals(signal.SIGINT, signal.SIGTERM)
    code = run(sys.argv[1:] if argv is None else argv)
    end_process(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        show_version("impala-actor", argv)
        objects_fd, argv = split_objects_option(argv)
        arguments = tyro.cli(ActorArguments, prog="impala-actor", args=list(argv))
        level = logging.INFO if arguments.verbose else logging.WARNING
        configure_logging(level, "actor", arguments.log_format)
        failpoints.arm_from_environment(host_of(arguments.server))
        stop = StopSignals()
        if arguments.exit_with_parent:
            stop_without_parent(stop)
        _act(arguments, stop, objects_fd)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _act(arguments: ActorArguments, stop: StopSignals, objects_fd: int | None) -> None:
    require_device("--device", arguments.device)
    # numpy's matrix products are small here: further threads would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(arguments.torch_threads))
    keep_large_buffers()
    import torch

    from impala_actor.acting.actor_loop import Actor, ActorConfig
    from impala_actor.acting.learner_client import default_actor_id
    from impala_actor.environments.factory import validate_environment_id
    from impala_common.config import EnvironmentConfig
    from impala_common.process.devices import resolve_device
    from impala_common.rpc.security import ClientSecurity

    torch.set_num_threads(arguments.torch_threads)
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
    device = "cpu" if arguments.device == "auto" else str(resolve_device(arguments.device))
    config = ActorConfig(
        server=absolute_address(arguments.server),
        env=arguments.env,
        model=arguments.model,
        actor_id=arguments.actor_id or default_actor_id(),
        num_envs=arguments.num_envs,
        env_backend=arguments.env_backend,
        env_kwargs=arguments.env_kwargs,
        env_wrapper=arguments.env_wrapper,
        env_threads=arguments.env_threads,
        device=device,
        inference_backend=arguments.inference_backend,
        compress=arguments.compress,
        connect_timeout_s=arguments.connect_timeout_s,
        heartbeat_file=absolute_path(arguments.heartbeat_file),
        env_timeout_s=arguments.env_timeout_s,
        max_env_failures=arguments.max_env_failures,
        security=ClientSecurity(
            ca_file=absolute_path(arguments.ca_file),
            token_file=absolute_path(arguments.token_file),
            client_cert=absolute_path(arguments.client_cert),
            client_key=absolute_path(arguments.client_key),
            server_name=arguments.server_name,
        ),
    )
    _LOG.info("actor %s plays %s for %s", config.actor_id, config.env, config.server)
    actor = Actor(config, stop)
    stop.begin(actor.abandon)
    actor.run()
    _LOG.info("played %d steps; messages by verdict: %s", actor.num_steps, actor.outcomes)
