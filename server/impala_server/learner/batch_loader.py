"""BatchLoader: makes tensors on the learner's device from a full batch slot.

Runs on the learner threads, before they queue up for the update, so that it
overlaps the update of another thread. On a CPU the tensors are the storage
itself, not copies (only frame stacks are gathered); on CUDA the storage is
registered as pinned memory and copied on a stream of the thread's own.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from impala_common.models.contract import AgentState, ModelInputs
from impala_common.run.event_history import mark_of, pack_rows
from impala_common.spec.specs import ModelSpec
from impala_server.storage.layout import (
    FRAME_INDEX,
    FRAMES,
    ORIGIN,
    POLICY_VERSION,
    StorageLayout,
)

_LOG = logging.getLogger(__name__)


class Batch(NamedTuple):
    """B unrolls side by side, on the learner's device.

    Attributes:
      inputs: model inputs, [T+1, B, ...].
      initial_agent_state: recurrent state before row 0, each [L, B, H].
      actions: [T, B, ...] as ActionSpec.tensor says.
      behaviour_policy_logits: float32 [T, B, P].
      rewards: float32 [T, B], raw.
      terminated: bool [T, B].
      is_padding: bool [T, B].
      policy_versions: int64 [B] on the host: version of the weights that acted.
      num_steps: rows of fresh unrolls, padding rows not counted.
      num_replayed: unrolls at the end of dim 1 that were trained on before.
    """

    inputs: ModelInputs
    initial_agent_state: AgentState
    actions: Tensor
    behaviour_policy_logits: Tensor
    rewards: Tensor
    terminated: Tensor
    is_padding: Tensor
    policy_versions: np.ndarray[tuple[int], np.dtype[np.int64]]
    num_steps: int
    num_replayed: int = 0

    @property
    def num_unrolls(self) -> int:
        """Number of fresh unrolls: B without replay."""
        return self.actions.shape[1] - self.num_replayed


class BatchLoader:
    """Loads batches. Each learner thread calls it; it holds no state that changes."""

    def __init__(
        self, layout: StorageLayout, buffer: memoryview, model: ModelSpec, device: torch.device
    ) -> None:
        """Maps all slots; on CUDA registers them as pinned memory."""
        self._layout = layout
        self._device = device
        self._has_feedback = model.is_fed_back
        self._views = layout.make_views(buffer)
        self._tensors = [
            {name: torch.from_numpy(view) for name, view in views.items()} for views in self._views
        ]
        spec = layout.spec
        rows = (spec.unroll_length + 1, layout.batch_size)
        action = spec.environment.action.tensor
        no_action = torch.zeros((), dtype=getattr(torch, action.dtype), device=device)
        self._no_actions = no_action.expand(*rows, *action.shape)
        self._no_rewards = torch.zeros((), device=device).expand(rows)
        columns = torch.arange(layout.batch_size, device=device)
        self._frame_starts = (columns * spec.max_frames).view(1, -1, 1)
        if device.type == "cuda":
            _pin(buffer)

    def load(self, slot: int) -> Batch:
        """Returns the batch in `slot`. The slot must not be freed before the update is over.

        On CUDA it waits for the copies.
        """
        if self._device.type != "cuda":
            return self._make_batch(slot)
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            batch = self._make_batch(slot)
        stream.synchronize()
        return batch

    def describe(self, slot: int, has_rows: bool) -> list[list[Any]]:
        """Returns the event history's record of each unroll in `slot`.

        Args:
          slot: one that is not freed yet.
          has_rows: whether to include the rows of the first observation leaf.

        Returns:
          For each column: actor index, session epoch, sequence number, place in the message,
          policy version, xxh3 mark of all leaves, rows if wanted. Any: JSON.
        """
        views = self._views[slot]
        first = self._layout.spec.environment.observation_leaves[0].name
        described: list[list[Any]] = []
        for column in range(self._layout.batch_size):
            leaves = {
                name: views[name][:, column] if is_time_major else views[name][column]
                for name, is_time_major in self._layout.time_major.items()
            }
            if self._layout.spec.uses_unique_frames:
                frames = views[FRAMES][column][views[FRAME_INDEX][:, column]]
                leaves = {self._layout.spec.frame_leaf.name: frames} | leaves
            one = [*views[ORIGIN][column].tolist(), int(views[POLICY_VERSION][column])]
            one.append(mark_of(leaves.values()))
            described.append([*one, pack_rows(leaves[first])] if has_rows else one)
        return described

    def _make_batch(self, slot: int) -> Batch:
        views = self._views[slot]
        leaves = {
            name: self._to_device(tensor)
            for name, tensor in self._tensors[slot].items()
            if name not in (FRAMES, FRAME_INDEX)
        }
        spec = self._layout.spec
        if spec.uses_unique_frames:
            observations = {spec.frame_leaf.name: self._gather_frames(slot)}
        else:
            observations = {
                leaf.name: leaves[leaf.name] for leaf in spec.environment.observation_leaves
            }
        return Batch(
            inputs=self._model_inputs(observations, leaves),
            # Stored column by column, [B, L, H]; networks want [L, B, H].
            initial_agent_state=tuple(
                leaves[state.name].transpose(0, 1).contiguous() for state in spec.agent_state
            ),
            actions=leaves["actions"],
            behaviour_policy_logits=leaves["behaviour_policy_logits"],
            rewards=leaves["rewards"],
            terminated=leaves["terminated"],
            is_padding=leaves["is_padding"],
            policy_versions=views[POLICY_VERSION].copy(),
            num_steps=int(views["is_padding"].size - np.count_nonzero(views["is_padding"])),
        )

    def _model_inputs(
        self, observations: dict[str, Tensor], leaves: dict[str, Tensor]
    ) -> ModelInputs:
        is_first = leaves["is_first"]
        if not self._has_feedback:
            return ModelInputs(observations, is_first, self._no_actions, self._no_rewards)
        # Row t of these inputs is the action and reward before observation t: those of row t-1.
        actions = torch.cat([leaves["previous_action"][None], leaves["actions"]])
        rewards = torch.cat([leaves["previous_reward"][None], leaves["rewards"]])
        return ModelInputs(
            observations,
            is_first,
            actions.masked_fill(is_first if actions.ndim == 2 else is_first.unsqueeze(-1), 0),
            rewards.masked_fill(is_first, 0.0),
        )

    def _gather_frames(self, slot: int) -> Tensor:
        """Returns the stacked observations [T+1, B, S, frame...]."""
        frames, index = self._tensors[slot][FRAMES], self._tensors[slot][FRAME_INDEX]
        if self._device.type == "cuda":
            frames = self._copy_used_frames(slot, frames)
        places = (self._to_device(index) + self._frame_starts).flatten()
        flat = frames.flatten(0, 1).index_select(0, places)
        return flat.view(*index.shape, *frames.shape[2:])

    def _copy_used_frames(self, slot: int, frames: Tensor) -> Tensor:
        on_device = torch.empty(frames.shape, dtype=frames.dtype, device=self._device)
        num_used = self._views[slot][FRAME_INDEX].max(axis=(0, 2)) + 1
        for column, count in enumerate(num_used.tolist()):
            on_device[column, :count].copy_(frames[column, :count], non_blocking=True)
        return on_device

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return tensor
        return tensor.to(self._device, non_blocking=True)


def _pin(buffer: memoryview) -> None:
    """Registers shared memory with CUDA, so that copies from it overlap other work."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    result = torch.cuda.cudart().cudaHostRegister(address, buffer.nbytes, 0)  # type: ignore[no-untyped-call]
    if int(result) != 0:
        _LOG.warning(
            "rollout storage could not be pinned (CUDA error %s): copies are slower", result
        )
