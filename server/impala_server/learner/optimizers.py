"""Optimizers by name, their schedule, and their state as named tensors.

RMSProp is torch's: eps outside the root, average of squares from 0. (TensorFlow's, used for the
paper, has eps inside the root and starts at 1.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from impala_common.config import OptimizerConfig
from impala_common.errors import CheckpointError

Array = np.ndarray[Any, Any]


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Returns the optimizer of all parameters of `model`."""
    parameters = list(model.parameters())
    if config.optimizer == "adam":
        return torch.optim.Adam(
            parameters,
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.eps,
            fused=True,
        )
    return torch.optim.RMSprop(
        parameters,
        lr=config.learning_rate,
        alpha=config.rmsprop_alpha,
        eps=config.eps,
        momentum=config.rmsprop_momentum,
        foreach=True,
    )


def compute_learning_rate(config: OptimizerConfig, trained_steps: int, total_steps: int) -> float:
    """Returns the learning rate at `trained_steps` of `total_steps` agent steps."""
    if config.learning_rate_schedule == "constant":
        return config.learning_rate
    return config.learning_rate * max(0.0, 1.0 - trained_steps / total_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def name_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Returns the optimizer's tensors themselves, named "parameter|quantity"."""
    return {
        f"{name}|{quantity}": torch.as_tensor(value).detach()
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def export_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Array]:
    """Returns copies of the optimizer's tensors, named as `name_state` does."""
    named = name_state(optimizer, model)
    return {name: value.cpu().numpy().copy() for name, value in named.items()}


def import_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, exported: dict[str, Array]
) -> None:
    """Restores the tensors that `export_state` returned.

    Raises:
      CheckpointError: the state belongs to other parameters.
    """
    parameters = dict(model.named_parameters())
    for key, array in exported.items():
        name, _, quantity = key.rpartition("|")
        parameter = parameters.get(name)
        if parameter is None or (array.ndim and array.shape != tuple(parameter.shape)):
            raise CheckpointError(f"optimizer state {key!r} fits no parameter of this model")
        value = torch.from_numpy(array.copy())
        is_step_count = array.ndim == 0
        optimizer.state[parameter][quantity] = (
            value
            if is_step_count and parameter.device.type == "cpu"
            else value.to(parameter.device)
        )
    for group in optimizer.param_groups:  # saved without momentum, continued with it
        for parameter in group["params"] if group.get("momentum") else ():
            if state := optimizer.state.get(parameter):
                state.setdefault("momentum_buffer", torch.zeros_like(parameter))
