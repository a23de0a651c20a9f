"""Return values of the agent's methods, and their printed form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from impala_actor.evaluation.policy_evaluation import Evaluation
from impala_common.run import metrics
from impala_server.messages import LearnerStatus


@dataclasses.dataclass(frozen=True, slots=True)
class TrainResult:
    """Result of a training.

    Attributes:
      reason: "finished", "interrupted" (Ctrl-C) or "stopped" (close, or an administrator).
      num_steps: agent steps trained on, over all trainings of the agent.
      num_updates: updates, likewise.
      num_episodes: finished episodes, likewise.
      return_mean: mean return of the last 100 episodes; None without finished episodes.
      run_dir: the run's folder: settings, metrics, checkpoints, logs.
      checkpoint: the last checkpoint.
    """

    reason: str
    num_steps: int
    num_updates: int
    num_episodes: int
    return_mean: float | None
    run_dir: Path
    checkpoint: Path


def make_train_result(
    status: LearnerStatus, is_interrupted: bool, run_dir: Path, checkpoints: Path
) -> TrainResult:
    """Returns the result of a learner's last status."""
    reason = "finished" if status.reason == "finished" else "stopped"
    return TrainResult(
        reason="interrupted" if is_interrupted and reason != "finished" else reason,
        num_steps=int(status.number(metrics.STEPS) or 0),
        num_updates=int(status.number(metrics.UPDATES) or 0),
        num_episodes=int(status.number(metrics.EPISODES) or 0),
        return_mean=status.number(metrics.RETURN_MEAN),
        run_dir=run_dir,
        checkpoint=checkpoints / status.last_checkpoint,
    )


class EvalResult(dict[str, Any]):  # Any: numbers and tuples
    """Result of `IMPALA.eval`: statistics of episodes, as attributes and, as in the seed, as keys.

    The attributes are those of `impala_rl.Evaluation`; returns are of whole games, never clipped.

    Attributes:
      episode_rewards: mean return, by the seed's name.
      episode_lengths: mean length, likewise.
    """

    episode_rewards: float
    episode_lengths: float
    num_episodes: int
    return_mean: float
    standard_error: float | None
    confidence_low: float | None
    confidence_high: float | None
    return_min: float
    return_max: float
    length_mean: float
    length_min: int
    length_max: int
    num_cut: int
    num_lost: int
    is_greedy: bool
    seed: int
    returns: tuple[float, ...]

    def __getattr__(self, name: str) -> Any:  # Any: as annotated
        """Returns the value of a key."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"EvalResult has no attribute {name!r}") from None


def make_eval_result(evaluation: Evaluation) -> EvalResult:
    """Returns an evaluation by the seed's names, with all further statistics."""
    return EvalResult(
        episode_rewards=evaluation.return_mean,
        episode_lengths=evaluation.length_mean,
        **evaluation.to_json(),
    )
