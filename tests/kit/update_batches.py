"""A small network with running statistics and batches for it, for tests of single updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from impala_common.config import LossConfig, ModelConfig, TrainConfig
from impala_common.errors import QueueClosedError
from impala_common.models.contract import ModelInputs
from impala_common.models.normalisation import NormalisedModel
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.testing.unrolls import make_vector_spec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.batch_source import TakenBatch
from impala_server.storage.handoff import ActorSeconds, FinishedEpisode

T, B = 7, 3
VECTOR = make_vector_spec().environment
(LEAF,) = VECTOR.observation_leaves
CONFIG = TrainConfig(
    model=ModelConfig(hidden_sizes=(8,), normalise_observations=True),
    loss=LossConfig(reward_normalisation="return_std", discount=0.9),
)


def make_normalised(config: TrainConfig = CONFIG, seed: int = 1) -> NormalisedModel:
    rewards = config.loss.reward_normalisation != "none"
    model = make_model(resolve_model_spec(config.model, VECTOR, rewards), VECTOR, seed)
    assert isinstance(model, NormalisedModel)
    return model


def make_batches(num_batches: int, seed: int = 1) -> list[Batch]:
    """Unrolls that go on where those of the batch before ended; one in seven rows is padding."""
    random = np.random.default_rng(seed)
    rows = num_batches * T + 1
    observations = random.normal(5.0, 3.0, (rows, B, *LEAF.shape)).astype(np.float32)
    is_padding = random.random((rows, B)) < 1 / 7
    is_first = np.zeros((rows, B), np.bool_)
    is_first[1:] = is_padding[:-1]
    is_first[0] = True
    observations[is_padding] = 1e6  # whatever an actor left there
    rewards = random.normal(1.0, 2.0, (rows, B)).astype(np.float32)
    batches = []
    for start in range(0, num_batches * T, T):
        part, whole = slice(start, start + T), slice(start, start + T + 1)
        inputs = ModelInputs(
            {LEAF.name: torch.tensor(observations[whole])},
            torch.tensor(is_first[whole]),
            torch.zeros(T + 1, B, dtype=torch.int64),
            torch.zeros(T + 1, B),
        )
        padding = torch.tensor(is_padding[part])
        batches.append(
            Batch(
                inputs=inputs,
                initial_agent_state=(),
                actions=torch.zeros(T, B, dtype=torch.int64),
                behaviour_policy_logits=torch.zeros(T, B, VECTOR.action.num_logits),
                rewards=torch.tensor(rewards[part]),
                terminated=torch.zeros(T, B, dtype=torch.bool),
                is_padding=padding,
                policy_versions=np.zeros(B, np.int64),
                num_steps=int((~padding).sum()),
            )
        )
    return batches


class ListSource:
    """A BatchSource: batches of a list, one after the other; notes what became of each."""

    def __init__(self, batches: list[Batch]) -> None:
        self._waiting = [
            TakenBatch(batch, slot, [FinishedEpisode(1.0, 5)], ActorSeconds(0.0, 0.0, 0.0))
            for slot, batch in enumerate(batches)
        ]
        self.released: list[tuple[int, bool]] = []

    def take(self) -> TakenBatch:
        if not self._waiting:
            raise QueueClosedError("the list is at its end")
        return self._waiting.pop(0)

    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def release(self, taken: TakenBatch, is_trained: bool) -> None:
        self.released.append((taken.slot, is_trained))

    def forget_all(self) -> None:
        pass

    def describe(self, taken: TakenBatch, has_rows: bool) -> list[list[Any]]:
        return [[taken.slot]]

    def close(self) -> None:
        self._waiting.clear()
