"""Evaluation and acting in the caller's own process.

Both make environments like actors. The evaluation has a copy of the network; the actor gets its
weights from the learner by gRPC.
"""

from __future__ import annotations

import contextlib
import threading

from impala_actor.acting.actor_config import ActorConfig
from impala_actor.acting.actor_loop import Actor
from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.factory import make_environment
from impala_actor.environments.rebuilt import RebuiltEnvironment
from impala_actor.evaluation.policy_evaluation import Evaluation, evaluate
from impala_common.config import TrainConfig
from impala_common.config.checks import is_own_model
from impala_common.models.contract import AgentModel
from impala_common.policy.policy import Policy
from impala_server.local.security import local_address, local_client_security

_MAX_SLOTS = 16
_EVALUATION_SEED = 1_000_003
_CONNECT_S = 30.0


def evaluate_in_process(
    network: AgentModel, env: str, config: TrainConfig, num_episodes: int, is_greedy: bool
) -> Evaluation:
    """Plays at least `num_episodes` episodes, seeded with the run's seed.

    Args:
      network: a copy for this call only.
      env: argument of make_environment.
      config: all settings.
      num_episodes: see `impala_actor.evaluation.policy_evaluation.evaluate`.
      is_greedy: likewise.
    """
    num_slots = max(1, min(num_episodes, _MAX_SLOTS))
    environment_config = config.environment.with_whole_games()
    seed = config.job.seed + _EVALUATION_SEED

    def make() -> EnvironmentAdapter:
        return make_environment(env, num_slots, environment_config)

    with contextlib.closing(RebuiltEnvironment(make, env=env)) as environment:
        policy = Policy(network, environment.spec.action, environment.num_slots, seed)
        return evaluate(policy, environment, num_episodes, seed, is_greedy=is_greedy)


def act_in_process(
    env: str, actor_id: str, address: str, config: TrainConfig, stop: threading.Event
) -> int:
    """Runs an actor on the calling thread until the run has finished or `stop`; returns its steps.

    Raises:
      ImpalaError: see `impala_actor.acting.actor_loop.Actor.run`.
    """
    actor = Actor(
        ActorConfig(
            server=local_address(address),
            env=env,
            actor_id=actor_id,
            env_backend=config.environment.env_backend,
            env_kwargs=config.environment.env_kwargs,
            env_wrapper=config.environment.env_wrapper,
            model=config.model.model if is_own_model(config.model.model) else "",
            env_timeout_s=0.0,  # the watchdog would end the caller's process
            connect_timeout_s=_CONNECT_S,
            security=local_client_security(config.security, address),
        ),
        stop,
    )
    actor.run()
    return actor.num_steps
