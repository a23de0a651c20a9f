"""RankPlace: which rank a process is, of how many, and where they find each other.

torchrun says so through environment variables; `impala-train --learner-ranks N` makes places for
one machine. The supervisor reads it and passes it to the learner process as an argument. Knows no
torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from impala_common.errors import ConfigError

TORCHRUN = "env://"
"""Rendezvous by the variables that torchrun sets: MASTER_ADDR, MASTER_PORT and others."""
MAX_RANKS = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    """The place of one learner rank.

    Attributes:
      rank: from 0; rank 0 owns checkpoints, metrics, administration and evaluation.
      num_ranks: ranks of the run; 1: a learner alone.
      local_rank: from 0, among the ranks of this machine.
      num_local: ranks of this machine.
      rendezvous: `TORCHRUN`, or the path of a file that does not exist yet, on this machine.
    """

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    num_local: int = 1
    rendezvous: str = ""

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if not 1 <= self.num_ranks <= MAX_RANKS:
            raise ConfigError("learner ranks", self.num_ranks, f"1 to {MAX_RANKS}")
        if not 0 <= self.rank < self.num_ranks or not 0 <= self.local_rank < self.num_local:
            raise ConfigError("rank", self.rank, f"0 to {self.num_ranks - 1}")

    @property
    def is_alone(self) -> bool:
        """Whether there are no other ranks."""
        return self.num_ranks == 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def is_local(self) -> bool:
        """Whether all ranks are on this machine."""
        return self.num_local == self.num_ranks

    def to_argument(self) -> str:
        """Returns the place as a command-line argument."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> RankPlace:
        """Returns the place that `to_argument` wrote."""
        return cls(**json.loads(text))

    @classmethod
    def from_torchrun(cls, environment: Mapping[str, str]) -> RankPlace:
        """Returns the place that torchrun gave this process; alone without torchrun.

        Raises:
          ConfigError: a variable of torchrun is missing or no number.
        """
        if "TORCHELASTIC_RUN_ID" not in environment:  # others set RANK and WORLD_SIZE, too
            return ALONE
        numbers = []
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            text = environment.get(name, "")
            if not text.isdecimal():
                raise ConfigError(name, text, "a number, as torchrun sets it")
            numbers.append(int(text))
        rank, num_ranks, local_rank, num_local = numbers
        return cls(
            rank=rank,
            num_ranks=num_ranks,
            local_rank=local_rank,
            num_local=num_local,
            rendezvous=TORCHRUN,
        )


ALONE = RankPlace()
"""The place of a learner without other ranks."""


def make_local_places(num_ranks: int, rendezvous: Path) -> list[RankPlace]:
    """Returns the places of ranks on this machine, which meet at a file that does not exist yet."""
    return [
        RankPlace(
            rank=rank,
            num_ranks=num_ranks,
            local_rank=rank,
            num_local=num_ranks,
            rendezvous=str(rendezvous.absolute()),
        )
        for rank in range(num_ranks)
    ]
