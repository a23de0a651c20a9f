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
    """Times that the learner goes through each batch."""
    max_passes: int = 0
    """Most passes over a batch: after `passes` of them the learner begins a further one while no
    other batch waits, so that it trains instead of waiting for actors. 0: no further ones."""
    parts: int = 1
    """Parts of about equal size that a batch is cut into for a pass, anew for each pass; one
    optimizer step is made on each. With loss_reduction sum, each sums over its own rows."""
    part_kind: PartKind = "unrolls"
    """What is shuffled into parts: whole unrolls, each from its stored recurrent state, or single
    rows of the whole batch, for networks without memory. auto: rows where the network has no
    memory, else unrolls, in as many parts as there are unrolls at most."""
    vtrace_per_pass: bool = True
    """Whether V-trace is computed anew, with the network as it is then, in each pass; else once,
    before the first pass. For parts that are unrolls it is computed anew for each part."""
    surrogate_clip: float = 0.0
    """Clip of the ratio pi/mu in the surrogate of PPO (usually 0.1 to 0.3), which takes the place
    of the policy gradient of V-trace; 0: no surrogate."""
    advantage_normalisation: AdvantageNormalisation = "none"
    """Whether advantages are shifted and scaled to mean 0 and deviation 1, over the batch or over
    each part."""
    kl_stop: float = 0.0
    """Largest mean KL divergence, in nats, of a part's target policy from its behaviour policy: the
    passes over a batch end before the first step, the first of the batch excepted, that would begin
    beyond it. 0: they never end early."""
    replay_ratio: float = 0.0
    """Older unrolls that are mixed into each batch, for each fresh one; 0: none. A batch then has
    batch_size x (1 + replay_ratio) unrolls."""
    replay_capacity_bytes: int = 256_000_000
    """Memory for older unrolls, on the learner's device; the oldest are overwritten. They are not
    part of checkpoints."""

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
