"""FrozenSource: the policy of a run's checkpoint or of an export; nothing is trained."""

from __future__ import annotations

from impala_common.policy.frozen_policy import NetworkPolicy
from impala_common.policy.inference.selection import make_inference
from impala_common.spec.specs import EnvironmentSpec, validate_same_environment
from impala_policy_server.engine_settings import EngineSettings
from impala_policy_server.policy_engine import PolicyEngine
from impala_policy_server.policy_source import OnEnd, OnRoom, PolicySource

_UNROLL_LENGTH = 1 << 20  # weights never change: what loading them costs does not count


class FrozenSource(PolicySource):
    """Plays with weights that stay as they are."""

    def __init__(self, policy: NetworkPolicy, settings: EngineSettings, seed: int) -> None:
        """Makes the engine for `policy`; `seed` decides what is drawn."""
        model = policy.model
        inference = make_inference(
            settings.inference_backend,
            model,
            policy.environment,
            settings.max_batch_size,
            _UNROLL_LENGTH,
            settings.device,
        )
        self._engine = PolicyEngine(
            policy.environment,
            inference,
            model.agent_state_specs(),
            seed=seed,
            max_slots=settings.max_slots,
            max_batch_size=settings.max_batch_size,
            version=0,
        )

    def attach(self, on_room: OnRoom, on_end: OnEnd) -> None:
        """See PolicySource; neither is ever called."""

    async def open(self, environment: EnvironmentSpec, num_slots: int) -> PolicyEngine:
        """See PolicySource."""
        validate_same_environment(self._engine.environment, environment)
        return self._engine

    async def close(self) -> None:
        """See PolicySource."""
