"""Specifications of a network's weights, and restoring weights from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from impala_common.errors import CheckpointError
from impala_common.spec.specs import TensorSpec

Array = np.ndarray[Any, Any]


def weights_specs(model: nn.Module) -> tuple[TensorSpec, ...]:
    """Returns one spec per tensor of the weights, in the order of their snapshot."""
    return tuple(
        TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in model.state_dict().items()
    )


def restore_weights(
    model: nn.Module, weights: Mapping[str, Array], checkpoint_name: str, network: str
) -> None:
    """Puts the weights of a checkpoint into the model.

    Args:
      model: gets the weights.
      weights: by name.
      checkpoint_name: for messages.
      network: the model's name, for messages.

    Raises:
      CheckpointError: they belong to another network.
    """
    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError as error:
        difference = _find_difference(model, weights) or " ".join(str(error).split())
        raise CheckpointError(
            f"checkpoint {checkpoint_name} is of another network, it does not fit this run's "
            f"network ({network}): {difference}"
        ) from error


def _find_difference(model: nn.Module, weights: Mapping[str, Array]) -> str:
    """Returns the first tensor with another name or shape, on one line; "" for none."""
    wanted = {spec.name: spec.shape for spec in weights_specs(model)}
    for name, shape in wanted.items():
        if name not in weights:
            return f"it has no {name}, which the network has with shape {shape}"
        if tuple(weights[name].shape) != shape:
            return f"{name} has shape {tuple(weights[name].shape)} in it, in the network {shape}"
    more = [name for name in weights if name not in wanted]
    return f"it has {more[0]}, which the network has not" if more else ""
