"""ReuseConfig: how often the learner uses each batch, and how; see sections.py."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from impala_common.config.checks import (
    require,
    require_at_least,
    require_one_of,
    require_positive,
)

PartKind = Literal["unrolls", "rows", "auto"]
AdvantageNormalisation = Literal["none", "batch", "part"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReuseConfig:
    """Sample reuse: passes over each batch, the clipped surrogate, replay. Defaults: IMPALA."""

    passes: int = 1
    """Passes over each batch."""
    max_passes: int = 0
    """Most passes over a batch: beyond `passes` only while no other batch waits; 0: none beyond."""
    parts: int = 1
    """Parts, about equal, into which each pass cuts a batch anew; one optimizer step each."""
    part_kind: PartKind = "unrolls"
    """What is shuffled into parts: unrolls, or rows for networks without memory. auto: rows if
    possible, else unrolls, at least one a part."""
    vtrace_per_pass: bool = True
    """Whether each pass computes V-trace anew, or only the first."""
    surrogate_clip: float = 0.0
    """PPO's clip of pi/mu (usually 0.1 to 0.3); its surrogate replaces V-trace's policy gradient.
    0: none."""
    advantage_normalisation: AdvantageNormalisation = "none"
    """Normalise advantages to mean 0 and deviation 1: over the batch, each part, or none."""
    kl_stop: float = 0.0
    """Mean KL divergence in nats, from behaviour to target policy, beyond which a batch's passes
    end; 0: never."""
    replay_ratio: float = 0.0
    """Older unrolls mixed into a batch per fresh unroll; 0: none."""
    replay_capacity_bytes: int = 256_000_000
    """Memory for older unrolls, on the learner's device; the oldest are overwritten. Checkpoints
    lack them."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_positive("passes", self.passes)
        require_at_least("max_passes", self.max_passes, 0)
        require_positive("parts", self.parts)
        require_one_of("part_kind", self.part_kind, get_args(PartKind))
        require_at_least("surrogate_clip", self.surrogate_clip, 0.0)
        require_one_of(
            "advantage_normalisation",
            self.advantage_normalisation,
            get_args(AdvantageNormalisation),
        )
        require_at_least("kl_stop", self.kl_stop, 0.0)
        require_at_least("replay_ratio", self.replay_ratio, 0.0)
        require_positive("replay_capacity_bytes", self.replay_capacity_bytes)

    @property
    def is_single_step(self) -> bool:
        """Whether exactly one optimizer step is made on each batch."""
        return self.passes == 1 and self.parts == 1 and self.max_passes <= 1

    def num_replayed(self, batch_size: int) -> int:
        """Returns how many older unrolls are mixed into a batch of `batch_size` fresh ones."""
        return round(self.replay_ratio * batch_size)

    def fit_to_network(self, has_memory: bool, batch_size: int) -> ReuseConfig:
        """Returns these settings with `auto` decided.

        Args:
          has_memory: whether the network has recurrent state.
          batch_size: fresh unrolls in a batch.
        """
        if self.part_kind != "auto":
            return self
        if not has_memory:
            return dataclasses.replace(self, part_kind="rows")
        num_unrolls = batch_size + self.num_replayed(batch_size)
        return dataclasses.replace(self, part_kind="unrolls", parts=min(self.parts, num_unrolls))

    def validate_batch(self, batch_size: int, unroll_length: int) -> None:
        """Checks the rules that need the size of a batch.

        Raises:
          ConfigError: a batch cannot be cut or filled up as asked.
        """
        num_unrolls = batch_size + self.num_replayed(batch_size)
        is_unrolls = self.part_kind == "unrolls"
        num_pieces = num_unrolls if is_unrolls else num_unrolls * unroll_length
        require(
            "parts",
            self.parts,
            self.parts <= num_pieces,
            f"at most {num_pieces}, the {'unrolls' if is_unrolls else 'rows'} of a batch",
            "a part would be empty",
        )
        require(
            "replay_ratio",
            self.replay_ratio,
            self.replay_ratio == 0.0 or self.num_replayed(batch_size) > 0,
            f"0, or large enough for one unroll in a batch of {batch_size}",
            "nothing would be replayed",
        )
