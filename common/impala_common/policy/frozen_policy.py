"""FrozenPolicy: a trained network with frozen weights, and the environment it was trained on.

What `load_policy`, `load_exported_policy` and `load_frozen_run` return.
"""

from __future__ import annotations

import dataclasses

from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ConfigError
from impala_common.models.contract import AgentModel
from impala_common.policy.policy import Policy
from impala_common.spec.specs import EnvironmentSpec, ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenPolicy:
    """A policy with frozen weights.

    Attributes:
      env: id of the environment it was trained on.
      environment: what it looks like.
      environment_config: how training made it, for `impala_rl.make_environment`.
      model_spec: the network.
      model: the network with its weights, on the CPU.
      step: agent steps trained.
    """

    env: str
    environment: EnvironmentSpec
    environment_config: EnvironmentConfig
    model_spec: ModelSpec
    model: AgentModel
    step: int

    def make_policy(self, num_slots: int, seed: int = 0) -> Policy:
        """Returns the policy for so many environment slots; `seed` decides what it draws."""
        return Policy(self.model, self.environment.action, num_slots, seed)


def require_own_model_named(spec: ModelSpec, own_model: str, path: object) -> None:
    """Raises ConfigError where a file names a user-supplied network that the caller does not."""
    if spec.is_own and spec.name != own_model:
        raise ConfigError(
            "own_model",
            own_model,
            repr(spec.name),
            f"{path} names this network, and what a file says is not imported by itself",
        )
