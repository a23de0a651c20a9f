"""RanksConfig: several learners that make each update together; see sections.py."""

from __future__ import annotations

import dataclasses

from impala_common.config.checks import require_between, require_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class RanksConfig:
    """Learner ranks: learners that make each update together, each on batches of its own."""

    learner_ranks: int = 1
    """Learners that impala-train starts, each adding batch_size unrolls to every update; with
    torchrun, as many as it starts."""
    rank_wait_s: float = 60.0
    """Seconds a rank may lack a batch while another has one; then the run ends, or allow_empty_rank
    applies."""
    allow_empty_rank: bool = False
    """Whether updates go on without ranks that lack a batch for rank_wait_s."""
    rank_timeout_s: float = 12.0
    """Seconds ranks wait for another within an update before it counts as dead."""
    rank_join_s: float = 300.0
    """Seconds for all ranks to join at the start."""
    rank_host: str = ""
    """Name or address of this rank for actors; empty: host, or the machine's name if host is
    0.0.0.0 or ::."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_between("learner_ranks", self.learner_ranks, 1, 256)
        require_positive("rank_wait_s", self.rank_wait_s)
        require_positive("rank_timeout_s", self.rank_timeout_s)
        require_positive("rank_join_s", self.rank_join_s)
