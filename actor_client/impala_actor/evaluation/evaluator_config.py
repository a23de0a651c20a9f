"""EvaluatorConfig: the settings of one evaluator, which are the options of impala-evaluator.

Imports neither torch nor grpc, so that --help is fast.
"""

from __future__ import annotations

import dataclasses
from typing import Self

from impala_actor.client_config import ClientConfig
from impala_common.config.checks import require_at_least, require_between
from impala_common.process.absolute_paths import absolute_path

_LOWEST_PRIORITY = 19


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatorConfig(ClientConfig):
    """Plays episodes with weights that the learner sets aside, frozen, and says how they did.

    The learner decides when (--eval-interval-steps) and how many. Runs at the lowest priority by
    default. May start before the learner and leave at any time. Ends with 0 when the run has
    finished or on SIGTERM or Ctrl-C, 69 when the learner cannot be reached in time, 77 when TLS or
    token do not fit, 78 when environment or network (--env, --model) cannot be made or do not fit
    the run.
    """

    evaluator_id: str = ""
    """Name of this evaluator, unique in the run; empty: host, process and a random part."""
    num_envs: int = 0
    """Environment slots, the same number of episodes each; 0: ten."""
    record_dir: str = ""
    """Folder for videos of what is judged, one episode each: DIR/videos, and DIR/tensorboard for
    TensorBoard; the newest 20 stay. Needs the extra `video`. Empty: none."""
    record_every: int = 1
    """With --record-dir: the first evaluation is filmed, and then every so many."""
    nice: int = _LOWEST_PRIORITY
    """How far to give way to other processes for the CPU, 0 (not at all) to 19."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        super().__post_init__()
        require_at_least("--record-every", self.record_every, 1)
        require_between("--nice", self.nice, 0, _LOWEST_PRIORITY)

    def with_absolute_paths(self) -> Self:
        """Returns the same settings with every path absolute."""
        paths = super().with_absolute_paths()
        return dataclasses.replace(paths, record_dir=absolute_path(self.record_dir))
