"""BatchSource: where the learner takes batches from.

An interface. `StorageSource` hands over full slots of rollout storage; a source that mixes
in older unrolls wraps another source. How often a batch is used once it is taken is decided
by the learner, not by the source.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from impala_server.learner.batch_loader import Batch
from impala_server.storage.handoff import ActorSeconds, FinishedEpisode


class TakenBatch(NamedTuple):
    """A batch taken from a source, to be released there.

    Attributes:
      batch: on the learner's device; valid until it is released.
      slot: the source's own number for it.
      episodes: episodes that finished in these unrolls.
      actor_seconds: time that the actors spent on them.
      wait_s: seconds that `take` waited until the batch was there.
      load_s: seconds that `take` then spent on copying it to the device.
    """

    batch: Batch
    slot: int
    episodes: list[FinishedEpisode]
    actor_seconds: ActorSeconds
    wait_s: float = 0.0
    load_s: float = 0.0


class BatchSource(Protocol):
    """Gives out batches; each is released after use. Safe for any number of threads."""

    def take(self) -> TakenBatch:
        """Returns the next batch, waiting for it.

        Raises:
          QueueClosedError: `close` was called, or no batch will come any more.
        """

    def has_waiting(self) -> bool:
        """Returns whether a batch waits to be taken, or was taken while another is in use."""

    def release(self, taken: TakenBatch, is_trained: bool) -> None:
        """Takes a batch back; the caller says whether it was taken into training, or dropped."""

    def forget_all(self) -> None:
        """Mixes no unroll that came before into later batches; those already taken stay as is."""

    def describe(self, taken: TakenBatch, has_rows: bool) -> list[list[Any]]:
        """Returns the origin of each unroll in a batch that is not released yet. Any: JSON.

        Args:
          taken: the batch.
          has_rows: whether to include the rows of the first observation leaf.
        """

    def close(self) -> None:
        """Ends all `take` calls soon."""
