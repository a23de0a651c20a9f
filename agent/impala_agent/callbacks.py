"""Callback and Progress: code of the caller that runs while `IMPALA.train` waits.

Hooks run in the caller's process, on the thread that called `train`. Learner and actors are other
processes and do not wait for them: while a hook is busy, the updates it misses are left out, and
evaluations and checkpoints are handed over afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from impala_actor.admin.admin_client import AdminClient, find_address
from impala_agent.results import TrainResult
from impala_common.config import TrainConfig
from impala_common.errors import LearnerUnavailableError
from impala_common.rpc.security import ClientSecurity
from impala_common.run.run_data import EvaluationPoint
from impala_common.run.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """A training under way, as hooks see it.

    Attributes:
      run_dir: the run's folder.
      total_steps: agent steps at which the training ends.
      steps: agent steps trained on, over all trainings of the agent.
      updates: updates made, likewise.
      episodes: episodes finished, likewise.
      metrics: the learner's newest numbers by the names of metrics.jsonl; None: no value yet.
    """

    run_dir: Path
    total_steps: int
    steps: int
    updates: int
    episodes: int
    metrics: Mapping[str, float | None]
    _request_stop: Callable[[], None]
    _config: TrainConfig

    def stop(self) -> None:
        """Ends the training in order, with a checkpoint; `TrainResult.reason` is "stopped"."""
        self._request_stop()

    def save(self, name: str = "") -> Path:
        """Asks the learner for a checkpoint now and waits until it is durable.

        Args:
          name: of the checkpoint, which is then kept for good; empty: "step-" and the step, which
            the learner removes after newer ones.

        Returns:
          Its folder.

        Raises:
          ImpalaError: the learner refused.
          LearnerUnavailableError: it has ended.
        """
        is_reachable = RunDirectory(self.run_dir).admin_address_path.exists()
        if not is_reachable and self._config.admin.admin_address != "none":
            raise LearnerUnavailableError("the learner has ended")
        security = ClientSecurity(token_file=self._config.security.admin_token_file)
        client = AdminClient(find_address(self.run_dir, ""), security)
        with contextlib.closing(client):
            saved = client.call("SaveCheckpoint", name=name).checkpoint.name
        return self.run_dir / "checkpoints" / str(saved)


class Callback:
    """Base of callbacks: `train(callbacks=[...])` calls each hook in the order of the list.

    An error in a hook ends the training in order, with a checkpoint, and `train` raises it.
    """

    def on_start(self, progress: Progress) -> None:
        """Called once, before the first update."""

    def on_update(self, progress: Progress) -> None:
        """Called after updates: several times a second at most, with the newest numbers."""

    def on_episode(self, progress: Progress) -> None:
        """Called after episodes have ended; `progress.episodes` says how many."""

    def on_evaluation(self, progress: Progress, evaluation: EvaluationPoint) -> None:
        """Called for every evaluation; needs `train(eval_interval=...)`."""

    def on_checkpoint(self, progress: Progress, path: Path) -> None:
        """Called when a checkpoint is durable; one that a newer one has replaced is left out."""

    def on_end(self, progress: Progress, result: TrainResult | None) -> None:
        """Called once, after all processes have ended; `result` is None after a failure."""
