"""WeightsStore: publishes a detached copy of the weights into shared memory.

Called by a learner thread under the update lock, so that no optimizer step
runs meanwhile. Readers never see live parameters.
"""

from __future__ import annotations

import torch
from torch import nn

from impala_common.codec.weights import SnapshotLayout
from impala_common.process import failpoints
from impala_server.storage.shared_block import SharedBlock
from impala_server.storage.weights_block import WeightsWriter, weights_block_bytes


class WeightsStore:
    """The learner's side of published weights."""

    def __init__(self, block: SharedBlock, model: nn.Module) -> None:
        """Sizes `block` for the weights of `model`; nothing is published yet."""
        self._sources = {name: value.detach() for name, value in model.state_dict().items()}
        layout = SnapshotLayout({name: v.cpu().numpy() for name, v in self._sources.items()})
        block.resize(weights_block_bytes(layout.num_bytes))
        self._writer = WeightsWriter(block.map(), layout)
        self._targets = [
            [torch.from_numpy(views[name]) for name in self._sources]
            for views in self._writer.buffers
        ]

    def publish(self, policy_version: int, trained_steps: int) -> None:
        """Makes the model's present weights the newest."""
        target = self._writer.begin()
        with torch.no_grad():
            torch._foreach_copy_(self._targets[target], list(self._sources.values()))
        failpoints.hit("publish.before_commit")
        self._writer.commit(target, policy_version, trained_steps)
