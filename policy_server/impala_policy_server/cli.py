"""impala-policy-server: plays for thin actors, as an actor of a learner or with a finished run.

Imports torch only after the arguments have been parsed, so that --help and errors are fast.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from impala_actor.acting.stop_signals import end_process
from impala_common.config import SecurityConfig, TrainConfig, TransportConfig
from impala_common.config.checks import (
    require,
    require_at_least,
    require_own_model,
    require_positive,
    validate_device,
)
from impala_common.config.job import InferenceBackendName
from impala_common.errors import ImpalaError
from impala_common.process.absolute_paths import absolute_address, absolute_path
from impala_common.process.allocator import keep_large_buffers
from impala_common.process.cuda_probe import require_device
from impala_common.process.exit_codes import INTERRUPTED, OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import LogFormat, configure_logging, write_line
from impala_common.process.standard_streams import prepare_standard_streams
from impala_common.rpc.addresses import require_server_address

if TYPE_CHECKING:  # imported late: it needs torch
    from impala_policy_server.policy_source import PolicySource
    from impala_policy_server.process import ServingSettings

_LOG = logging.getLogger(__name__)
_LEAVE_S = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyServerArguments:
    """Chooses actions for environments that run elsewhere (thin actors, in any language).

    With --learner it is an actor of that learner, whose environment slots are remote: it sends the
    unrolls of its clients, and plays with the newest weights. With --policy it plays with the
    weights of a file, and nothing is trained. Ends with 0 when the run has finished
    or on SIGTERM or Ctrl-C, 69 when the learner cannot be reached in time, 75 when the port is
    taken, 77 when TLS or token do not fit, 78 when a setting or the network cannot work.
    """

    learner: str = ""
    """Address of the learner, HOST:PORT or unix:PATH."""
    policy: str = ""
    """In place of --learner: folder of a run, or of an exported policy, to play with."""
    checkpoint: str = ""
    """Of a run: "best", or another name below its checkpoints; empty: the newest."""
    seed: int = 0
    """Of the draws with --policy."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 50052
    """Port to listen on; 0: any free one."""
    address_file: str = ""
    """File to write the address to once the port is open; empty: none."""
    actor_id: str = ""
    """Name of this server as an actor of the learner; empty: host, process and a random part."""
    model: Annotated[str, tyro.conf.arg(metavar="MODULE:CLASS")] = ""
    """The network of your own that the run trains; empty: one that comes with impala-rl."""
    device: str = "auto"
    """Device of the network: auto (the CPU), cpu, cuda or cuda:N."""
    torch_threads: int = 1
    """CPU threads of the network."""
    inference_backend: InferenceBackendName = "auto"
    """How the network is run; see impala-actor --help."""
    max_batch_size: int = 256
    """Slots in one call of the network; more are decided in several calls."""
    max_batch_wait_ms: float = 2.0
    """Longest wait of an observation for those of the other slots. A batch closes earlier when
    every slot that is played has its observation there."""
    slot_timeout_s: float = 60.0
    """Silence after which a slot's episode is given up: what is known of it is trained as
    truncated, and its client has to reset it."""
    max_clients: int = 1024
    """Clients at a time."""
    max_slots: int = 4096
    """Slots of all clients at a time."""
    ca_file: str = ""
    """CA that the learner's certificate comes from (PEM); empty: no TLS towards the learner."""
    token_file: str = ""
    """File of the actor token for the learner, readable by its owner only; empty: none is sent."""
    client_cert: str = ""
    """Certificate to show the learner (PEM, mutual TLS)."""
    client_key: str = ""
    """Its private key (PEM)."""
    server_name: str = ""
    """Name the learner's certificate is for; empty: the host in --learner."""
    tls_cert: str = ""
    """Certificate to show clients (PEM, with its chain); empty: no TLS towards clients."""
    tls_key: str = ""
    """Its private key (PEM), readable by its owner only."""
    tls_client_ca: str = ""
    """CA whose certificates clients must show (mutual TLS); empty: they need none."""
    actor_token_file: str = ""
    """File of the token that clients must send, readable by its owner only; empty: none."""
    allow_insecure_public_bind_without_tls: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let anyone who can reach the port play. Not for open networks."""
    connect_timeout_s: float = 0.0
    """Seconds to wait for a learner that cannot be reached before giving up; 0: for ever."""
    exit_with_parent: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """End when the process that started this one is gone."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Log details."""
    log_format: LogFormat = "auto"
    """How log records look on stderr; auto: text on a terminal, JSON lines elsewhere."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require(
            "--learner",
            self.learner,
            bool(self.learner) != bool(self.policy),
            "given, or --policy in its place",
        )
        if self.learner:
            require_server_address("--learner", self.learner)
        require(
            "--checkpoint",
            self.checkpoint,
            bool(self.policy) or not self.checkpoint,
            "left out without --policy",
        )
        if self.model:
            require_own_model("--model", self.model)
        for name, value in (
            ("--torch-threads", self.torch_threads),
            ("--max-batch-size", self.max_batch_size),
            ("--slot-timeout-s", self.slot_timeout_s),
            ("--max-clients", self.max_clients),
            ("--max-slots", self.max_slots),
        ):
            require_positive(name, value)
        require_at_least("--max-batch-wait-ms", self.max_batch_wait_ms, 0)
        require_at_least("--connect-timeout-s", self.connect_timeout_s, 0)
        validate_device(self.device)

    def listening(self) -> TrainConfig:
        """Returns where and to whom the server listens, under the rules of a learner's port."""
        return TrainConfig(
            transport=TransportConfig(
                host=self.host,
                port=self.port,
                allow_insecure_public_bind_without_tls=self.allow_insecure_public_bind_without_tls,
            ),
            security=SecurityConfig(
                tls_cert=absolute_path(self.tls_cert),
                tls_key=absolute_path(self.tls_key),
                tls_client_ca=absolute_path(self.tls_client_ca),
                actor_token_file=absolute_path(self.actor_token_file),
            ),
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    code = run(sys.argv[1:] if argv is None else argv)
    end_process(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        show_version("impala-policy-server", argv)
        arguments = tyro.cli(PolicyServerArguments, prog="impala-policy-server", args=list(argv))
        level = logging.INFO if arguments.verbose else logging.WARNING
        configure_logging(level, "policy-server", arguments.log_format)
        _serve(arguments)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _serve(arguments: PolicyServerArguments) -> None:
    listening = arguments.listening()
    require_device("--device", arguments.device)
    # numpy's matrix products are small here: further threads would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(arguments.torch_threads))
    keep_large_buffers()
    import torch

    from impala_policy_server.process import ServingSettings

    torch.set_num_threads(arguments.torch_threads)
    settings = ServingSettings(
        listening=listening,
        max_clients=arguments.max_clients,
        max_batch_wait_s=arguments.max_batch_wait_ms / 1e3,
        slot_timeout_s=arguments.slot_timeout_s,
    )
    asyncio.run(_serve_until_signal(arguments, settings, lambda: _make_source(arguments)))


async def _serve_until_signal(
    arguments: PolicyServerArguments,
    settings: ServingSettings,
    make_source: Callable[[], PolicySource],
) -> None:
    from impala_policy_server.process import serve

    loop = asyncio.get_running_loop()
    parent = os.getppid()

    def on_bound(address: str, request_end: Callable[[], None]) -> None:
        is_asked = False

        def on_signal() -> None:
            nonlocal is_asked
            if is_asked:
                os._exit(INTERRUPTED)
            is_asked = True
            signal.alarm(_LEAVE_S)  # a learner that does not answer must not hold up the end
            request_end()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        loop.add_signal_handler(signal.SIGALRM, os._exit, OK)
        if arguments.exit_with_parent:
            _watch_parent(loop, parent, on_signal)
        if arguments.address_file:
            path = Path(arguments.address_file)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            unfinished.write_text(address + "\n", encoding="utf-8")
            unfinished.replace(path)
        whose = arguments.policy or f"the learner at {arguments.learner}"
        write_line("info", f"policy server at {address}, with the policy of {whose}")

    await serve(settings, make_source, on_bound)


def _watch_parent(
    loop: asyncio.AbstractEventLoop, parent: int, on_gone: Callable[[], None]
) -> None:
    """Calls `on_gone` within a second of the end of the process `parent`."""
    if os.getppid() != parent:
        on_gone()
        return
    loop.call_later(1.0, _watch_parent, loop, parent, on_gone)


def _make_source(arguments: PolicyServerArguments) -> PolicySource:
    from impala_actor.acting.learner_client import default_actor_id
    from impala_common.policy.exported_policy import load_policy
    from impala_common.policy.frozen_policy import NetworkPolicy
    from impala_common.process.devices import resolve_device
    from impala_common.rpc.security import ClientSecurity
    from impala_policy_server.engine_settings import EngineSettings
    from impala_policy_server.frozen_source import FrozenSource
    from impala_policy_server.learner_source import LearnerSource

    device = "cpu" if arguments.device == "auto" else str(resolve_device(arguments.device))
    settings = EngineSettings(
        max_slots=arguments.max_slots,
        max_batch_size=min(arguments.max_batch_size, arguments.max_slots),
        device=device,
        inference_backend=arguments.inference_backend,
        model=arguments.model,
    )
    if arguments.policy:
        policy = load_policy(
            arguments.policy, arguments.checkpoint or None, arguments.model, runtime="torch"
        )
        assert isinstance(policy, NetworkPolicy)
        return FrozenSource(policy, settings, arguments.seed)
    return LearnerSource(
        absolute_address(arguments.learner),
        arguments.actor_id or default_actor_id(),
        settings,
        connect_timeout_s=arguments.connect_timeout_s,
        security=ClientSecurity(
            ca_file=absolute_path(arguments.ca_file),
            token_file=absolute_path(arguments.token_file),
            client_cert=absolute_path(arguments.client_cert),
            client_key=absolute_path(arguments.client_key),
            server_name=arguments.server_name,
        ),
    )
