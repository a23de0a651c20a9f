"""How a batch is cut into the parts that optimizer steps are made on.

Called by the updater. Pure, but for the generator that shuffles. A part that is the whole
batch is no copy; others are gathered once per pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from impala_common.config import ReuseConfig
from impala_common.models.contract import AgentState, ModelInputs
from impala_common.numerics.losses import Targets
from impala_server.learner.batch_loader import Batch


class Part(NamedTuple):
    """What one optimizer step is made on: T rows of each of B columns.

    With `targets`, rows are [T, B] throughout. Without, inputs have one row more, [T+1, B],
    whose value is the bootstrap, and V-trace makes the targets of the network's outputs.

    Attributes:
      inputs: model inputs.
      initial_agent_state: state before row 0, each [L, B, H].
      actions: [T, B, ...].
      behaviour_policy_logits: float32 [T, B, P].
      rewards: float32 [T, B], raw; of no meaning with targets.
      terminated: bool [T, B]; likewise.
      is_padding: bool [T, B].
      targets: of these rows, or None.
    """

    inputs: ModelInputs
    initial_agent_state: AgentState
    actions: Tensor
    behaviour_policy_logits: Tensor
    rewards: Tensor
    terminated: Tensor
    is_padding: Tensor
    targets: Targets | None = None


def take_fresh(batch: Batch) -> Part:
    """Returns the unrolls of a batch that were taken from storage for it, without a copy."""
    whole = take_whole(batch)
    if not batch.num_replayed:
        return whole
    return _map(whole, lambda leaf: leaf[:, : batch.num_unrolls])


def take_whole(batch: Batch, targets: Targets | None = None) -> Part:
    """Returns the batch as one part, without a copy."""
    return Part(
        batch.inputs if targets is None else _map_inputs(batch.inputs, lambda leaf: leaf[:-1]),
        batch.initial_agent_state,
        batch.actions,
        batch.behaviour_policy_logits,
        batch.rewards,
        batch.terminated,
        batch.is_padding,
        targets,
    )


def cut(
    batch: Batch, targets: Targets | None, reuse: ReuseConfig, generator: torch.Generator
) -> Iterator[Part]:
    """Yields the parts of one pass over `batch`, together all of its rows that count.

    Args:
      batch: what to cut.
      targets: of the whole batch; None: each part makes its own (unrolls only).
      reuse: `parts` and `part_kind`.
      generator: on the CPU; draws the order, where there is more than one part.
    """
    whole = take_whole(batch, targets)
    if reuse.parts == 1:
        yield whole
        return
    device = batch.actions.device
    if reuse.part_kind == "unrolls":
        num_columns = batch.actions.shape[1]
        order = torch.randperm(num_columns, generator=generator).to(device)
        for columns in order.tensor_split(reuse.parts):
            yield _take_columns(whole, columns)
        return
    flat = _flatten(whole)
    # Padding rows are left out: rows of a part are all of use.
    counted = (~batch.is_padding).flatten().nonzero().squeeze(1)
    order = torch.randperm(len(counted), generator=generator).to(device)
    for places in counted[order].tensor_split(reuse.parts):
        if len(places):  # nearly all of the batch may be padding
            yield _take_columns(flat, places)


def _map_inputs(inputs: ModelInputs, change: Callable[[Tensor], Tensor]) -> ModelInputs:
    return ModelInputs(
        {name: change(leaf) for name, leaf in inputs.observations.items()},
        change(inputs.is_first),
        change(inputs.previous_actions),
        change(inputs.previous_rewards),
    )


def _map(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """Returns a part whose every tensor is changed."""
    return Part(
        _map_inputs(part.inputs, change),
        tuple(change(state) for state in part.initial_agent_state),
        change(part.actions),
        change(part.behaviour_policy_logits),
        change(part.rewards),
        change(part.terminated),
        change(part.is_padding),
        None if part.targets is None else Targets(*map(change, part.targets)),
    )


def _take_columns(part: Part, columns: Tensor) -> Part:
    """Returns columns `columns` of a part, gathered."""
    return _map(part, lambda leaf: leaf.index_select(1, columns))


def _flatten(part: Part) -> Part:
    """Returns the T x B rows of a part with targets as T x B columns of one row each."""
    assert part.targets is not None
    return _map(part, lambda leaf: leaf.flatten(0, 1).unsqueeze(0))
