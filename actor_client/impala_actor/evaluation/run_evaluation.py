"""evaluate_run: evaluates the newest checkpoint of a run's folder.

Loads a frozen run, makes environment and policy, and plays. Called by
`impala_actor.eval_cli`, which imports this file late, as it needs torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.factory import make_environment
from impala_actor.environments.rebuilt import RebuiltEnvironment
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_actor.evaluation.policy_evaluation import Evaluation, evaluate, require_finite
from impala_common.policy.frozen_run import FrozenRun, load_frozen_run
from impala_common.policy.policy import Policy
from impala_common.spec.specs import validate_same_environment


@dataclasses.dataclass(frozen=True, slots=True)
class RunEvaluation:
    """An evaluation, and the run and checkpoint that it is of.

    Attributes:
      run: the run's folder, as it was given.
      env: id of the environment of the evaluation.
      checkpoint: name of the checkpoint.
      step: agent steps trained at the checkpoint.
      evaluation: the result.
    """

    run: str
    env: str
    checkpoint: str
    step: int
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns one flat JSON object."""
        head = {"run": self.run, "env": self.env, "checkpoint": self.checkpoint, "step": self.step}
        return head | self.evaluation.to_json()


def evaluate_run(
    path: Path,
    *,
    num_episodes: int,
    num_slots: int,
    seed: int,
    is_greedy: bool = False,
    env: str | None = None,
    checkpoint_name: str | None = None,
    max_episode_steps: int = 0,
) -> RunEvaluation:
    """Evaluates one run with frozen weights, over `num_episodes` or slightly more episodes.

    Args:
      path: the run's folder.
      num_episodes: see `impala_actor.evaluation.policy_evaluation.evaluate`.
      num_slots: environment slots; never more than episodes.
      seed: of environments and draws.
      is_greedy: take the most probable action in place of drawing one.
      env: environment of the evaluation, which must have the same spaces; None: the run's.
      checkpoint_name: None: the newest undamaged one.
      max_episode_steps: see `evaluate`.

    Raises:
      ConfigError: no run there, or settings that cannot work.
      CheckpointError: no usable checkpoint.
      SpecMismatchError: the environment's spaces differ from those of training.
      EnvironmentFailedError: it failed too often, or a return is not finite.
    """
    return evaluate_frozen_run(
        load_frozen_run(path, checkpoint_name),
        num_episodes=num_episodes,
        num_slots=num_slots,
        seed=seed,
        is_greedy=is_greedy,
        env=env,
        max_episode_steps=max_episode_steps,
    )


def evaluate_frozen_run(
    run: FrozenRun,
    *,
    num_episodes: int,
    num_slots: int,
    seed: int,
    is_greedy: bool = False,
    env: str | None = None,
    max_episode_steps: int = 0,
    watchdog: EnvironmentWatchdog | None = None,
) -> RunEvaluation:
    """Evaluates a loaded run; otherwise as `evaluate_run`.

    `watchdog` is entered for every call of the environment; None: calls have no time limit.
    """
    env = env or run.env
    num_slots = min(num_slots, num_episodes)
    config = run.environment_config.with_whole_games()

    def make() -> EnvironmentAdapter:
        return make_environment(env, num_slots, config)

    with contextlib.closing(RebuiltEnvironment(make, None, watchdog, env=env)) as environment:
        validate_same_environment(run.environment, environment.spec)
        policy = Policy(run.model, run.environment.action, environment.num_slots, seed)
        evaluation = evaluate(
            policy,
            environment,
            num_episodes,
            seed,
            is_greedy=is_greedy,
            max_episode_steps=max_episode_steps,
        )
    require_finite(evaluation)
    return RunEvaluation(str(run.path), env, run.checkpoint, run.step, evaluation)
