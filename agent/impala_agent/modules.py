"""Converts the model and encoder arguments to a registered network name.

A name stays a name. A class, a maker or an existing network becomes a maker named "object:Name",
registered in this process and packed for the others.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from impala_common.config.checks import OBJECT_PREFIX
from impala_common.errors import ConfigError
from impala_common.models.contract import AgentModel
from impala_common.models.registry import register_model
from impala_common.models.trunk import Encoder
from impala_common.process.passed_objects import Kind, pack_object
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

Objects = dict[tuple[Kind, str], bytes]
_WAY_ROUND = "Pass a class, or a function of (model_spec, environment_spec) that makes the network"
_numbers = itertools.count(1)


def make_model_source(argument: str, value: object) -> tuple[str, Objects]:
    """Returns the name of a network for `model.model`, and its packed objects for other processes.

    Args:
      argument: "model" or "encoder", for messages.
      value: a shipped name, "module:Class", a class or a function of (model_spec,
        environment_spec), or a network; see docs/migration.md.

    Raises:
      ConfigError: it is of another type, or cannot be copied to learner and actors.
    """
    if isinstance(value, str):
        return value, {}
    if isinstance(value, nn.Module):
        maker: Callable[[ModelSpec, EnvironmentSpec], nn.Module] = _Copies(argument, value)
        title = type(value).__name__
    elif callable(value):
        is_plain = argument == "encoder" and not _is_encoder_class(value)
        maker = _Features(value) if is_plain else value
        title = getattr(value, "__name__", type(value).__name__)
    else:
        raise ConfigError(argument, value, "a name, a network, a class or a maker", _WAY_ROUND)
    word = re.sub(r"\W+", "_", title).strip("_") or argument
    name = f"{OBJECT_PREFIX}{word}_{next(_numbers)}"
    data = pack_object(argument, maker, _WAY_ROUND)
    register_model(name, maker)
    return name, {("model", name): data}


def _is_encoder_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Encoder | AgentModel)


class _Copies:
    """Makes copies of an existing network, with its weights."""

    def __init__(self, argument: str, network: nn.Module) -> None:
        self._is_encoder = argument == "encoder"
        self._network = copy.deepcopy(network).cpu()

    def __call__(self, spec: ModelSpec, environment: EnvironmentSpec) -> nn.Module:
        network = copy.deepcopy(self._network)
        if self._is_encoder and not isinstance(network, Encoder | AgentModel):
            return PlainEncoder(network, spec, environment)
        return network


class _Features:
    """Makes an encoder with a function or class of (model_spec, environment_spec)."""

    def __init__(self, maker: Callable[..., nn.Module]) -> None:
        self._maker = maker

    def __call__(self, spec: ModelSpec, environment: EnvironmentSpec) -> nn.Module:
        network = self._maker(spec, environment)
        if isinstance(network, Encoder | AgentModel):
            return network
        return PlainEncoder(network, spec, environment)


class PlainEncoder(Encoder):
    """Encoder around any module from a batch of observations [N, ...] to features [N, F].

    Its input is one float32 tensor, scaled by `observation_scale`, for an environment with one
    observation leaf, else a dictionary of them by leaf.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.network = network
        self._scale = spec.observation_scale
        leaves = environment.observation_leaves
        self._only_leaf = leaves[0].name if len(leaves) == 1 else ""
        observations = {leaf.name: torch.zeros(1, 2, *leaf.shape) for leaf in leaves}
        was_training = network.training
        with torch.no_grad():
            features = self.eval()(observations)
        self.train(was_training)
        if features.dim() != 2 or features.shape[0] != 2:
            raise ConfigError(
                "encoder",
                type(network).__name__,
                "a module from observations [N, ...] to features [N, F]",
                f"for N = 2 it gave {list(features.shape)}",
            )
        self.num_features = int(features.shape[1])

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns float32 [T*B, F] for leaves [T, B, ...]."""
        rows: dict[str, Any] = {
            name: leaf.flatten(0, 1).float() * self._scale for name, leaf in observations.items()
        }
        features: Tensor = self.network(rows[self._only_leaf] if self._only_leaf else rows)
        return features
