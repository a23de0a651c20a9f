"""A batch of padding rows: what a rank without a batch contributes to an update.

Its gradient, its losses and its counts are 0, so that an update on the other ranks' rows is what it
would be without this rank.
"""

from __future__ import annotations

import numpy as np
import torch

from impala_server.learner.batch_loader import BatchLoader
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.training_state import TrainingState
from impala_server.storage.handoff import ActorSeconds
from impala_server.storage.layout import StorageLayout


def make_stand_in(state: TrainingState) -> TakenBatch:
    """Returns B unrolls of padding rows on the state's device; its slot is -1."""
    layout = StorageLayout(state.unroll_spec, state.config.rollout.batch_size, 1)
    zeros = memoryview(bytearray(layout.num_bytes))
    batch = BatchLoader(layout, zeros, state.model_spec, state.device).load(0)
    batch = batch._replace(
        is_padding=torch.ones_like(batch.is_padding),
        policy_versions=np.full_like(batch.policy_versions, state.counters.policy_version),
        num_steps=0,
    )
    return TakenBatch(batch, -1, [], ActorSeconds(0.0, 0.0, 0.0))
