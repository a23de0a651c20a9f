"""RanksConfig: several learners that make each update together; see sections.py."""

from __future__ import annotations

import dataclasses

from impala_common.config.checks import require_between, require_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class RanksConfig:
    """Learner ranks: learners that make each update together, each on batches of its own."""

    learner_ranks: int = 1
    """Learners that impala-train starts on this machine; each takes batches of batch_size, so that
    an update has learner_ranks times as many rows. With torchrun, as many as torchrun starts."""
    rank_wait_s: float = 60.0
    """Seconds that a rank may be without a batch while another one has one; then the run ends, or
    goes on without it where allow_empty_rank says so."""
    allow_empty_rank: bool = False
    """Whether updates are made without the ranks that have no batch for rank_wait_s."""
    rank_timeout_s: float = 12.0
    """Longest time that the ranks wait for one of them within an update; then it counts as dead.
    (A rank that is killed is noticed at once.) More than a rank's own part of an update takes."""
    rank_join_s: float = 300.0
    """Longest time until all ranks have come, at the start."""
    rank_host: str = ""
    """Name or address by which actors reach this rank; empty: host, or the machine's name where
    host is every address of the machine."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_between("learner_ranks", self.learner_ranks, 1, 256)
        require_positive("rank_wait_s", self.rank_wait_s)
        require_positive("rank_timeout_s", self.rank_timeout_s)
        require_positive("rank_join_s", self.rank_join_s)
