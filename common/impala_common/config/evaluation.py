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
    """Agent steps between two evaluations during training; 0: none. Where an evaluation
    takes longer than training to the next, the newest weights are judged and others left out."""
    eval_interval_episodes: int = 20
    """Episodes of each of them: so many drawing actions, and so many taking the likeliest."""
    eval_max_share: float = 0.0
    """Most agent steps that evaluations play, as a share of the steps trained meanwhile: candidates
    that come too early are left out, but never the last. 0: any number of steps."""
    eval_env: str = ""
    """Environment id they are played in, with the same spaces; empty: the one trained on."""
    eval_video_every: int = 0
    """Which evaluations impala-train's evaluator films: the first and then every so many, one
    episode each, for TensorBoard and RUN/videos, where the newest 20 stay; 0: none. Needs the
    extra `video`."""
    eval_last_wait_s: float = 30.0
    """Seconds that the end of a run waits for the evaluation of its last weights, if an evaluator
    is connected; 0: not at all."""
    eval_best_by: Literal["sampled", "greedy"] = "sampled"
    """By which mean return the checkpoint `best` is chosen: of drawn or of likeliest actions."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_at_least("eval_interval_steps", self.eval_interval_steps, 0)
        require_positive("eval_interval_episodes", self.eval_interval_episodes)
        require_at_least("eval_max_share", self.eval_max_share, 0)
        require_at_least("eval_video_every", self.eval_video_every, 0)
        require_at_least("eval_last_wait_s", self.eval_last_wait_s, 0)
        require_one_of("eval_best_by", self.eval_best_by, ("sampled", "greedy"))
