"""Typed settings of a run: sections, presets, TOML, command line."""

from impala_common.config.access import AdminConfig, SecurityConfig
from impala_common.config.evaluation import EvaluationConfig
from impala_common.config.job import JobConfig
from impala_common.config.policy_serving import PolicyServingConfig
from impala_common.config.ranks import RanksConfig
from impala_common.config.reuse import ReuseConfig
from impala_common.config.sections import (
    MAX_STORAGE_SLOTS,
    CheckpointConfig,
    EnvironmentConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    TransportConfig,
)
from impala_common.config.train import TrainConfig

__all__ = [
    "MAX_STORAGE_SLOTS",
    "AdminConfig",
    "CheckpointConfig",
    "EnvironmentConfig",
    "EvaluationConfig",
    "JobConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PolicyServingConfig",
    "RanksConfig",
    "ReuseConfig",
    "RolloutConfig",
    "SecurityConfig",
    "TrainConfig",
    "TransportConfig",
]
