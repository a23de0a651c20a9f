"""What the weights of a network consist of: told to actors at Register, compared there."""

from __future__ import annotations

from torch import nn

from impala_common.specs import TensorSpec


def weights_specs(model: nn.Module) -> tuple[TensorSpec, ...]:
    """Returns one spec per tensor of the weights, in the order of their snapshot."""
    return tuple(
        TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in model.state_dict().items()
    )
