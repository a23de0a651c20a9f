"""Bfloat16Inference: encoder in bfloat16, memory and policy head in float32.

Faster where the processor multiplies bfloat16 (AMX, avx512_bf16) and the network is large enough.
Convolutions keep their weights in channels_last. The recurrent state stays float32 and
as exact as its inputs: rounding is not carried from step to step.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from impala_common.models.action_mask import MaskedModel
from impala_common.models.contract import AgentModel
from impala_common.models.normalisation import NormalisedModel
from impala_common.models.trunk import TrunkModel
from impala_common.policy.inference.backend import UnsuitableModelError
from impala_common.policy.inference.eager import EagerInference


class Bfloat16Inference(EagerInference):
    """Runs a copy of the network whose encoder's layers are bfloat16."""

    name: ClassVar[str] = "bfloat16"
    tolerance: ClassVar[float] = 0.03

    def __init__(self, model: AgentModel, num_slots: int, device: str = "cpu") -> None:
        """Copies `model`, which stays unchanged.

        Raises:
          UnsuitableModelError: it is not built of encoder, memory and heads, or has no layer that
            can be converted.
        """
        converted = copy.deepcopy(model)
        network = converted.network if isinstance(converted, NormalisedModel) else converted
        network = network.network if isinstance(network, MaskedModel) else network
        if not isinstance(network, TrunkModel):
            raise UnsuitableModelError("the network is not an encoder with heads")
        layers = [m for m in network.encoder.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        if not layers:
            raise UnsuitableModelError("the encoder has no linear layer or convolution")
        for layer in layers:
            layer.to(torch.bfloat16)
            if isinstance(layer, nn.Conv2d):
                weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
                layer.weight = nn.Parameter(weight, requires_grad=False)
            layer.register_forward_pre_hook(_to_bfloat16)
        for reader in (network.core, network.hidden, network.policy_head):
            if reader is not None:
                reader.register_forward_pre_hook(_to_float32)
        super().__init__(converted, num_slots, device)


def _to_bfloat16(unused_layer: nn.Module, inputs: Any) -> tuple[Tensor, ...]:  # Any: torch's type
    return (inputs[0].to(torch.bfloat16), *inputs[1:])


def _to_float32(unused_layer: nn.Module, inputs: Any) -> tuple[Tensor, ...]:  # Any: torch's type
    return (inputs[0].to(torch.float32), *inputs[1:])
