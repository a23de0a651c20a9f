"""EvaluationConfig: settings of evaluation during training.

The text under each field is its documentation, as in `impala_common.config.sections`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from impala_common.config.checks import require_at_least, require_one_of, require_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation during training, by a process of its own."""

    eval_interval_steps: int = 0
    """Agent steps between evaluations during training; 0: none. Unless set, impala-train
    chooses."""
    eval_interval_episodes: int = 20
    """Episodes per evaluation during training, with drawn and again with likeliest actions. Unless
    set, impala-train takes 10 where it chooses the interval."""
    eval_max_share: float = 0.0
    """Evaluations play at most this share of the trained steps: a candidate that comes too soon
    after the last evaluation is left out, except the run's last one. 0: no limit. Unless set,
    impala-train takes 0.06 where it chooses the interval."""
    eval_env: str = ""
    """Environment id for evaluations during training, with the same spaces; empty: env."""
    eval_video_every: int = 0
    """impala-train films the first and every n-th evaluation, for TensorBoard and RUN/videos
    (newest 20); 0: none. Extra: video."""
    eval_last_wait_s: float = 30.0
    """Seconds the end waits for the last weights' evaluation, if an evaluator is connected."""
    eval_best_by: Literal["sampled", "greedy"] = "sampled"
    """Checkpoint `best` by mean return of drawn (sampled) or likeliest (greedy) actions."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_at_least("eval_interval_steps", self.eval_interval_steps, 0)
        require_positive("eval_interval_episodes", self.eval_interval_episodes)
        require_at_least("eval_max_share", self.eval_max_share, 0)
        require_at_least("eval_video_every", self.eval_video_every, 0)
        require_at_least("eval_last_wait_s", self.eval_last_wait_s, 0)
        require_one_of("eval_best_by", self.eval_best_by, ("sampled", "greedy"))
