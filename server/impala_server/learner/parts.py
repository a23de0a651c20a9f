"""Cuts a batch into the parts that optimizer steps are made on.

Called by the updater. Pure, except for the generator that shuffles. A part that is the whole batch
is not copied; others are gathered once per pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from impala_common.config import ReuseConfig
from impala_common.models.contract import AgentState, ModelInputs
from impala_common.numerics.losses import Targets
from impala_server.learner.batch_loader import Batch


class Part(NamedTuple):
    """The data of one optimizer step: T rows of each of B columns.

    With `targets`, every tensor has rows [T, B]. Without, inputs have one more row, [T+1, B], whose
    value is the bootstrap value, and V-trace computes the targets from the network's outputs.

    Attributes:
      inputs: model inputs.
      initial_agent_state: recurrent state before row 0, each [L, B, H].
      actions: [T, B, ...].
      behaviour_policy_logits: float32 [T, B, P].
      rewards: float32 [T, B], preprocessed; None with targets.
      terminated: bool [T, B]; None with targets.
      is_padding: bool [T, B].
      targets: of these rows, or None.
      is_last: whether it is the last part of its pass.
      is_fresh: bool [T, B]: rows of unrolls that are not replayed; None: all.
    """

    inputs: ModelInputs
    initial_agent_state: AgentState
    actions: Tensor
    behaviour_policy_logits: Tensor
    rewards: Tensor | None
    terminated: Tensor | None
    is_padding: Tensor
    targets: Targets | None = None
    is_last: bool = True
    is_fresh: Tensor | None = None

    @property
    def num_rows(self) -> Tensor:
        """Rows that count, int64 []."""
        return (~self.is_padding).sum()

    @property
    def num_fresh_rows(self) -> Tensor:
        """Rows that count and are not replayed, int64 []."""
        return self.num_rows if self.is_fresh is None else (self.is_fresh & ~self.is_padding).sum()


def map_columns(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Returns a batch with `change` applied to every tensor; columns are on dim 1."""
    return batch._replace(
        inputs=_map_inputs(batch.inputs, change),
        initial_agent_state=tuple(change(state) for state in batch.initial_agent_state),
        actions=change(batch.actions),
        behaviour_policy_logits=change(batch.behaviour_policy_logits),
        rewards=change(batch.rewards),
        terminated=change(batch.terminated),
        is_padding=change(batch.is_padding),
    )


def take_fresh(batch: Batch) -> Batch:
    """Returns a batch without its replayed unrolls; no copy."""
    if not batch.num_replayed:
        return batch
    fresh = map_columns(batch, lambda leaf: leaf[:, : batch.num_unrolls])
    return fresh._replace(num_replayed=0)


def take_whole(batch: Batch, targets: Targets | None = None) -> Part:
    """Returns the batch as one part, without a copy."""
    return Part(
        batch.inputs if targets is None else _map_inputs(batch.inputs, lambda leaf: leaf[:-1]),
        batch.initial_agent_state,
        batch.actions,
        batch.behaviour_policy_logits,
        batch.rewards if targets is None else None,
        batch.terminated if targets is None else None,
        batch.is_padding,
        targets,
        is_fresh=_find_fresh(batch),
    )


def _find_fresh(batch: Batch) -> Tensor | None:
    if not batch.num_replayed:
        return None
    is_fresh = torch.zeros_like(batch.is_padding)
    is_fresh[:, : batch.num_unrolls] = True
    return is_fresh


def cut(
    batch: Batch, targets: Targets | None, reuse: ReuseConfig, generator: torch.Generator
) -> Iterator[Part]:
    """Yields the parts of one pass over `batch`; together they hold all rows but padding.

    Args:
      batch: the batch to cut.
      targets: of the whole batch; None: each part computes its own (whole unrolls only).
      reuse: `parts` and `part_kind`.
      generator: on the CPU; draws the order if there are several parts.
    """
    whole = take_whole(batch, targets)
    if reuse.parts == 1:
        yield whole
        return
    device = batch.actions.device
    if reuse.part_kind == "unrolls":
        num_columns = batch.actions.shape[1]
        num_parts = min(reuse.parts, num_columns)  # the first batches have no older unrolls yet
        order = torch.randperm(num_columns, generator=generator).to(device)
        for number, columns in enumerate(order.tensor_split(num_parts), 1):
            yield _take_columns(whole, columns)._replace(is_last=number == num_parts)
        return
    # Padding rows are left out, so that every row of a part counts. Gathered once, then cut.
    counted = (~batch.is_padding).flatten().nonzero().squeeze(1)
    num_rows = len(counted)
    order = torch.randperm(num_rows, generator=generator).to(device)
    shuffled = _take_columns(_flatten(whole), counted[order])
    size, rest = divmod(num_rows, reuse.parts)  # the first `rest` parts have one row more
    bounds = [number * size + min(number, rest) for number in range(reuse.parts + 1)]
    for first, end in itertools.pairwise(bounds):
        if first < end:  # a part may be empty if nearly all rows are padding
            yield _slice(shuffled, first, end)._replace(is_last=end == num_rows)


def fill_up(
    parts: Iterator[Part], batch: Batch, targets: Targets | None, reuse: ReuseConfig
) -> Iterator[Part]:
    """Yields exactly `reuse.parts` parts, since all learner ranks must make as many steps.

    `cut` yields fewer where nearly all rows are padding, and before there are older unrolls to mix
    in: parts of padding, one row or one unroll, which have no gradient, follow them.

    Args:
      parts: what `cut` yields.
      batch: that was cut.
      targets: of the whole batch.
      reuse: `parts` and `part_kind`, as `cut` has them.
    """
    for number in range(1, reuse.parts + 1):
        if (part := next(parts, None)) is None:
            whole = take_whole(batch, targets)
            part = _slice(_flatten(whole) if reuse.part_kind == "rows" else whole, 0, 1)
            part = part._replace(is_padding=torch.ones_like(part.is_padding))
        yield part._replace(is_last=number == reuse.parts)


def _slice(part: Part, first: int, end: int) -> Part:
    return _map(part, lambda leaf: leaf[:, first:end])


def _map_inputs(inputs: ModelInputs, change: Callable[[Tensor], Tensor]) -> ModelInputs:
    return ModelInputs(
        {name: change(leaf) for name, leaf in inputs.observations.items()},
        change(inputs.is_first),
        change(inputs.previous_actions),
        change(inputs.previous_rewards),
    )


def _map(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """Returns a part with `change` applied to every tensor."""
    return Part(
        _map_inputs(part.inputs, change),
        tuple(change(state) for state in part.initial_agent_state),
        change(part.actions),
        change(part.behaviour_policy_logits),
        None if part.rewards is None else change(part.rewards),
        None if part.terminated is None else change(part.terminated),
        change(part.is_padding),
        None if part.targets is None else Targets(*map(change, part.targets)),
        is_fresh=None if part.is_fresh is None else change(part.is_fresh),
    )


def _take_columns(part: Part, columns: Tensor) -> Part:
    """Returns columns `columns` of a part, gathered."""
    return _map(part, lambda leaf: leaf.index_select(1, columns))


def _flatten(part: Part) -> Part:
    """Returns the T x B rows of a part with targets as T x B columns of one row each."""
    assert part.targets is not None
    return _map(part, lambda leaf: leaf.flatten(0, 1).unsqueeze(0))
