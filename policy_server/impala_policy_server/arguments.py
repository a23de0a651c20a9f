"""PolicyServerArguments: the options of impala-policy-server, and the rules of single ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from impala_common.config import AdminConfig, SecurityConfig, TrainConfig, TransportConfig
from impala_common.config.checks import (
    MAX_THREADS,
    require,
    require_at_least,
    require_between,
    require_held,
    require_own_model,
    require_time,
    validate_device,
)
from impala_common.config.job import InferenceBackendName
from impala_common.process.absolute_paths import absolute_address, absolute_path
from impala_common.process.logs import LogFormat
from impala_common.rpc.addresses import require_server_address
from impala_common.rpc.limits import LONGEST_S
from impala_common.rpc.security import ClientSecurity

_MOST = 1 << 20
"""Most clients, slots, and slots in a batch: arrays of so many are made at the start."""


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
    every slot that is played has its observation there, and after as long as decisions take."""
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
    admin_address: str = "none"
    """Where impala-admin finds the server: unix:PATH (a socket that only its owner may use),
    HOST:PORT of this machine, or none."""
    admin_address_file: str = ""
    """File to write the address of the admin service to; empty: none."""
    admin_token_file: str = ""
    """File of the token that administrators must send, readable by its owner only; empty: none."""
    audit_file: str = ""
    """File that gets a line for each change by an administrator, and for the end; empty: none."""
    prometheus_port: int = 0
    """Port of the Prometheus endpoint, /metrics over HTTP; 0: none, -1: any free one."""
    prometheus_host: str = "127.0.0.1"
    """Address of the Prometheus endpoint. It is read-only, but open to every client."""
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
        require_held(self, "--")
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
        require_between("--torch-threads", self.torch_threads, 1, MAX_THREADS)
        for name, value in (
            ("--max-batch-size", self.max_batch_size),
            ("--max-clients", self.max_clients),
            ("--max-slots", self.max_slots),
        ):
            require_between(name, value, 1, _MOST)
        require_time("--slot-timeout-s", self.slot_timeout_s)
        require_between("--max-batch-wait-ms", self.max_batch_wait_ms, 0, LONGEST_S * 1e3)
        require_at_least("--seed", self.seed, 0)
        require_at_least("--connect-timeout-s", self.connect_timeout_s, 0)
        require_between("--prometheus-port", self.prometheus_port, -1, 65535)
        require(
            "--admin-address",
            self.admin_address,
            self.admin_address != "unix",
            "unix:PATH, HOST:PORT with a loopback address, or none",
            "a policy server has no run's folder to put a socket into",
        )
        validate_device(self.device)
        self.listening()  # its rules, before anything starts

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
                admin_token_file=absolute_path(self.admin_token_file),
            ),
            admin=AdminConfig(admin_address=absolute_address(self.admin_address)),
        )

    @property
    def security(self) -> ClientSecurity:
        """What the server shows the learner, and whom it takes for it."""
        return ClientSecurity(
            ca_file=absolute_path(self.ca_file),
            token_file=absolute_path(self.token_file),
            client_cert=absolute_path(self.client_cert),
            client_key=absolute_path(self.client_key),
            server_name=self.server_name,
        )

    @property
    def admin_paths(self) -> tuple[Path | None, Path | None]:
        """The file of the admin service's address, and that of audit lines."""
        return (
            Path(self.admin_address_file).absolute() if self.admin_address_file else None,
            Path(self.audit_file).absolute() if self.audit_file else None,
        )
