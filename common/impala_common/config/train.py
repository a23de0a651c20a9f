"""TrainConfig: all settings of a run, and the rules that need two sections."""

from __future__ import annotations

import dataclasses

from impala_common.config.access import AdminConfig, SecurityConfig
from impala_common.config.checks import require, require_held
from impala_common.config.evaluation import EvaluationConfig
from impala_common.config.job import JobConfig
from impala_common.config.policy_serving import PolicyServingConfig
from impala_common.config.ranks import RanksConfig
from impala_common.config.reuse import ReuseConfig
from impala_common.config.sections import (
    CheckpointConfig,
    EnvironmentConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    TransportConfig,
)
from impala_common.rpc.addresses import is_local, is_unix, require_host

HOW_TO_BIND = (
    "Make certificates and tokens with `impala-admin certs init DIR --name HOST` (HOST: the name "
    "by which actors reach this machine) and pass --tls-cert DIR/server.crt --tls-key "
    "DIR/server.key --actor-token-file DIR/actor.token. On a network where every machine and user "
    "is trusted, --allow-insecure-public-bind-without-tls goes without"
)
"""Options for listening to other machines."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run; config.toml has one table per field."""

    job: JobConfig = dataclasses.field(default_factory=JobConfig)
    environment: EnvironmentConfig = dataclasses.field(default_factory=EnvironmentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    reuse: ReuseConfig = dataclasses.field(default_factory=ReuseConfig)
    transport: TransportConfig = dataclasses.field(default_factory=TransportConfig)
    security: SecurityConfig = dataclasses.field(default_factory=SecurityConfig)
    admin: AdminConfig = dataclasses.field(default_factory=AdminConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    policy_server: PolicyServingConfig = dataclasses.field(default_factory=PolicyServingConfig)
    ranks: RanksConfig = dataclasses.field(default_factory=RanksConfig)

    def __post_init__(self) -> None:
        """Checks the rules that need two sections, and those of all settings."""
        for field in dataclasses.fields(self):
            require_held(getattr(self, field.name))
        require_host("host", self.transport.host)
        require(
            "host",
            self.transport.host,
            is_local(self.transport.host)
            or self.has_tls_and_token
            or self.transport.allow_insecure_public_bind_without_tls,
            "a loopback address, or used with TLS and an actor token",
            f"traffic would be neither encrypted nor authenticated. {HOW_TO_BIND}",
        )
        self.reuse.validate_batch(self.rollout.batch_size, self.rollout.unroll_length)
        if self.policy_server.is_wanted:
            self._validate_policy_server()
        if self.job.lockstep:
            self._validate_lockstep()

    def _validate_policy_server(self) -> None:
        name = "thin" if self.policy_server.thin else "policy_port"
        value = getattr(self.policy_server, name)
        require(
            name,
            value,
            not self.job.lockstep,
            "left out with --lockstep",
            "a policy server plays at the speed of its clients",
        )
        require(
            name,
            value,
            not is_unix(self.transport.host),
            "left out with a Unix socket as --host",
            "a policy server listens on a port of the same host",
        )

    def _validate_lockstep(self) -> None:
        require(
            "num_actors",
            self.job.num_actors,
            self.job.num_actors == 1,
            "1 with --lockstep",
            "the order in which several actors' unrolls arrive is not determined",
        )
        require(
            "learner_ranks",
            self.ranks.learner_ranks,
            self.ranks.learner_ranks == 1,
            "1 with --lockstep",
            "one actor cannot feed several ranks",
        )
        require(
            "envs_per_actor",
            self.environment.envs_per_actor,
            self.environment.envs_per_actor == self.rollout.batch_size,
            f"batch_size ({self.rollout.batch_size}) with --lockstep",
            "the actor waits for an update after each message, so a message must be a batch",
        )
        require(
            "max_passes",
            self.reuse.max_passes,
            self.reuse.max_passes <= self.reuse.passes,
            f"at most passes ({self.reuse.passes}) with --lockstep",
            "how many passes there is time for is not determined",
        )
        require(
            "weights_refresh",
            self.transport.weights_refresh,
            self.transport.weights_refresh == "unroll",
            "unroll with --lockstep",
            "at which step newer weights arrive is not determined",
        )
        require(
            "publish_interval_updates",
            self.transport.publish_interval_updates,
            self.transport.publish_interval_updates == 1,
            "1 with --lockstep",
            "the actor would wait for weights that are not published",
        )

    @property
    def has_tls_and_token(self) -> bool:
        """Whether actors are authenticated and connections are encrypted."""
        return bool(self.security.tls_cert and self.security.actor_token_file)

    @property
    def is_bound_insecurely(self) -> bool:
        """Whether other machines can reach the learner without TLS or without a token."""
        return not is_local(self.transport.host) and not self.has_tls_and_token
