"""TrainConfig: all settings of a run, and the rules that need two sections."""

from __future__ import annotations

import dataclasses

from impala_common.config.checks import require
from impala_common.config.sections import (
    CheckpointConfig,
    EnvironmentConfig,
    JobConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    TransportConfig,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run; config.toml has one table per field."""

    job: JobConfig = dataclasses.field(default_factory=JobConfig)
    environment: EnvironmentConfig = dataclasses.field(default_factory=EnvironmentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    transport: TransportConfig = dataclasses.field(default_factory=TransportConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        """Checks the rules that need two sections."""
        if not self.job.lockstep:
            return
        require(
            "num_actors",
            self.job.num_actors,
            self.job.num_actors == 1,
            "1 with --lockstep",
            "the order in which several actors' unrolls arrive is not determined",
        )
        require(
            "envs_per_actor",
            self.environment.envs_per_actor,
            self.environment.envs_per_actor == self.rollout.batch_size,
            f"batch_size ({self.rollout.batch_size}) with --lockstep",
            "the actor waits for an update after each message, so a message must be a batch",
        )
        require(
            "publish_interval_updates",
            self.transport.publish_interval_updates,
            self.transport.publish_interval_updates == 1,
            "1 with --lockstep",
            "the actor would wait for weights that are not published",
        )
