"""Weights of a network: their specifications, and how they are restored."""

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
      model: takes them over.
      weights: by name.
      checkpoint_name: for people.
      network: what the model is called, for people.

    Raises:
      CheckpointError: they are not the weights of this network.
    """
    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint_name} is of another network, it does not fit this run's "
            f"network ({network}): {error}"
        ) from error
