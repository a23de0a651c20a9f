"""Initial weights, by name.

Called by the networks while they are made, inside the registry's own random stream.
"identity" keeps torch's defaults; every other method sets biases to 0. Gains follow
the nonlinearity after the layer: sqrt(2) for relu, 5/3 for tanh; the policy head gets
0.01, so that the first policy is nearly uniform, and the value head 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from impala_common.errors import ConfigError

POLICY_HEAD_GAIN = 0.01
VALUE_HEAD_GAIN = 1.0

Nonlinearity = Literal["relu", "tanh"]


def initialise_layers(module: nn.Module, init_method: str, nonlinearity: Nonlinearity) -> None:
    """Initialises all Linear and Conv2d layers inside `module`, in their fixed order."""
    gain = nn.init.calculate_gain(nonlinearity)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _initialise_layer(layer, init_method, gain)


def initialise_head(layer: nn.Linear, init_method: str, gain: float) -> None:
    """Initialises a linear output layer; its outputs are scaled by `gain`."""
    _initialise_layer(layer, init_method, gain)


@torch.no_grad()
def initialise_recurrent(layer: nn.LSTM | nn.GRU, init_method: str) -> None:
    """Makes weights orthogonal, biases 0 and an LSTM's forget bias 1, unless "identity".

    An open forget gate lets gradients reach far back from the first update on: recall tasks take
    tens of thousands of steps in place of hundreds of thousands.
    """
    if init_method == "identity":
        return
    width = layer.hidden_size
    for name, parameter in layer.named_parameters():
        if name.startswith("weight"):
            nn.init.orthogonal_(parameter)
            continue
        parameter.zero_()
        if isinstance(layer, nn.LSTM) and name.startswith("bias_ih"):
            # Gates are ordered input, forget, cell, output.
            parameter[width : 2 * width] = 1.0


@torch.no_grad()
def _initialise_layer(layer: nn.Linear | nn.Conv2d, init_method: str, gain: float) -> None:
    if init_method == "identity":
        return
    if init_method == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
    elif init_method == "xavier_uniform":
        nn.init.xavier_uniform_(layer.weight, gain)
    elif init_method == "xavier_normal":
        nn.init.xavier_normal_(layer.weight, gain)
    elif init_method == "kaiming_uniform":
        # "linear" is kaiming with gain 1; the gain proper is applied afterwards.
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear").mul_(gain)
    elif init_method == "kaiming_normal":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear").mul_(gain)
    else:
        raise ConfigError("init_method", init_method, "a known initialisation")
    if layer.bias is not None:
        layer.bias.zero_()
