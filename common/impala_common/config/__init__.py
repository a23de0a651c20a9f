"""Typed settings of a run: sections, presets, TOML, command line."""

from impala_common.config.sections import (
    CheckpointConfig,
    EnvironmentConfig,
    JobConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    SecurityConfig,
    TransportConfig,
)
from impala_common.config.train import TrainConfig

__all__ = [
    "CheckpointConfig",
    "EnvironmentConfig",
    "JobConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RolloutConfig",
    "SecurityConfig",
    "TrainConfig",
    "TransportConfig",
]
