"""A batch cut into parts along B, for a device that has no memory for the whole.

Gradients of the parts add up to that of the whole: a column of a batch knows
nothing of the others. (A network of one's own that mixes columns, as batch
normalisation does, sees smaller batches.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from impala_common.models.contract import ModelInputs
from impala_server.learner.batch_loader import Batch


def split_batch(batch: Batch, num_parts: int) -> Iterator[Batch]:
    """Yields `num_parts` parts of about the same size, views of `batch`; fewer for a smaller B."""
    batch_size = batch.actions.shape[1]
    num_parts = min(num_parts, batch_size)
    for part in range(num_parts):
        first, end = part * batch_size // num_parts, (part + 1) * batch_size // num_parts
        yield _take_columns(batch, slice(first, end))


def _take_columns(batch: Batch, columns: slice) -> Batch:
    inputs = batch.inputs
    is_padding = batch.is_padding[:, columns]
    return Batch(
        inputs=ModelInputs(
            {name: leaf[:, columns] for name, leaf in inputs.observations.items()},
            inputs.is_first[:, columns],
            inputs.previous_actions[:, columns],
            inputs.previous_rewards[:, columns],
        ),
        initial_agent_state=tuple(
            state[:, columns].contiguous() for state in batch.initial_agent_state
        ),
        actions=batch.actions[:, columns],
        behaviour_policy_logits=batch.behaviour_policy_logits[:, columns],
        rewards=batch.rewards[:, columns],
        terminated=batch.terminated[:, columns],
        is_padding=is_padding,
        policy_versions=batch.policy_versions[columns],
        num_steps=int(torch.count_nonzero(~is_padding)),
    )
