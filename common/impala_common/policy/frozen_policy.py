"""FrozenPolicy: a trained policy with frozen weights, and the environment it was trained on.

What `load_policy` returns: a NetworkPolicy, whose network runs in torch, or a
`impala_common.policy.graph_policy.GraphPolicy`, whose graph runs in onnxruntime. Importing this
file loads no torch.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ConfigError
from impala_common.policy.inference.backend import Array, StepInputs
from impala_common.policy.policy import Policy
from impala_common.policy.prediction import PredictState, predict
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

if TYPE_CHECKING:
    from impala_common.models.contract import AgentModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenPolicy(ABC):
    """A policy with frozen weights.

    Attributes:
      env: id of the environment it was trained on.
      environment: its observations and actions.
      environment_config: how training made it, for `impala_rl.make_environment`.
      model_spec: the network.
      step: agent steps trained.
    """

    env: str
    environment: EnvironmentSpec
    environment_config: EnvironmentConfig
    model_spec: ModelSpec
    step: int
    _random: np.random.Generator = dataclasses.field(
        default_factory=lambda: np.random.default_rng(0), init=False, repr=False, compare=False
    )

    @abstractmethod
    def make_policy(self, num_slots: int, seed: int = 0) -> Policy:
        """Returns the policy for so many environment slots; `seed` decides its draws."""

    @abstractmethod
    def run_network(
        self, inputs: StepInputs, agent_state: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, ...]]:
        """Returns logits float32 [N, P] and the next recurrent state.

        Args:
          inputs: of N environments.
          agent_state: each float32 [L, N, H]; empty: fresh episodes.
        """

    def predict(
        self,
        observation: Any,  # Any: as the environment's space is nested
        state: PredictState | None = None,
        deterministic: bool = True,
        *,
        episode_start: Any = None,  # Any: a bool, or an array or list of them
        reward: Any = None,  # Any: a number, or an array or list of them
        action_mask: Any = None,  # Any: an array or list of bools
    ) -> tuple[Any, PredictState]:
        """Returns an action as the environment's `step` takes it, and the next state.

        Args:
          observation: as the environment gives it, or a batch with a leading dimension N; for
            Atari and other environments with preprocessing, after it.
          state: result of the call before, for networks with memory; None: an episode begins.
          deterministic: take the likeliest action; False: draw one.
          episode_start: bool [N]: which observations open an episode.
          reward: float [N]: of the step before; only networks with the previous reward need it.
          action_mask: bool [N, P]: legal actions, where infos report them.

        Raises:
          SpecMismatchError: the observation has another shape or element type.
          ConfigError: the state is of another number of environments, or a reward is missing.
        """
        return predict(
            self.run_network,
            self.environment,
            observation,
            state,
            None if deterministic else self._random,
            is_fed_back=self.model_spec.is_fed_back,
            episode_start=episode_start,
            reward=reward,
            action_mask=action_mask,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkPolicy(FrozenPolicy):
    """A FrozenPolicy that runs in torch.

    Attributes:
      model: the network with its weights, on the CPU.
    """

    model: AgentModel

    def make_policy(self, num_slots: int, seed: int = 0) -> Policy:
        """See FrozenPolicy."""
        return Policy(self.model, self.environment.action, num_slots, seed)

    def run_network(
        self, inputs: StepInputs, agent_state: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, ...]]:
        """See FrozenPolicy."""
        return run_model(self.model, inputs, agent_state)


def run_model(
    model: AgentModel, inputs: StepInputs, agent_state: tuple[Array, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """Returns what `FrozenPolicy.run_network` does, with a network on any device."""
    import torch  # late: policies of graphs need none

    from impala_common.models.contract import ModelInputs

    device = next(model.parameters()).device

    def row(array: Array) -> torch.Tensor:
        return torch.from_numpy(array).to(device).unsqueeze(0)

    with torch.inference_mode():
        state = tuple(torch.from_numpy(array).to(device) for array in agent_state)
        observations = {name: row(array) for name, array in inputs.observations.items()}
        logits, next_state = model.act(
            ModelInputs(observations, *map(row, inputs[1:])),
            state or model.initial_state(len(inputs.is_first)),
        )
        return (
            logits[0].to(torch.float32).cpu().numpy(),
            tuple(tensor.cpu().numpy() for tensor in next_state),
        )


def require_own_model_named(spec: ModelSpec, own_model: str, path: object) -> None:
    """Raises ConfigError where a file names a user-supplied network that the caller does not."""
    if spec.is_own and spec.name != own_model:
        raise ConfigError(
            "own_model",
            own_model,
            repr(spec.name),
            f"{path} names this network, and what a file says is not imported by itself",
        )
