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


def make_eval_result(evaluation: Evaluation) -> dict[str, Any]:  # Any: numbers and tuples
    """Returns an evaluation by the seed's names, with all further statistics."""
    return {
        "episode_rewards": evaluation.return_mean,
        "episode_lengths": evaluation.length_mean,
        **evaluation.to_json(),
    }
