"""NumpyMlpInference: the MLP without memory, in numpy.

For layers as small as these each call into torch costs more than the arithmetic: 8 slots of
CartPole's network take a fourth of eager's time, 256 a third. Float32 like eager, and equal to it
except for rounding. Buffers are reused at each step; only the logits are a new array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from torch import nn

from impala_common.models.contract import AgentModel
from impala_common.models.mlp import SeparateMlp
from impala_common.models.normalisation import VARIANCE_EPS, NormalisedModel
from impala_common.models.policy_head import MAX_LOG_STD, MIN_LOG_STD
from impala_common.policy.inference.backend import (
    Array,
    InferenceBackend,
    StepInputs,
    UnsuitableModelError,
)


class _Normaliser(NamedTuple):
    """Mean, deviation and clip of one leaf, in the leaf's own precision."""

    mean: Array
    inverse_std: Array


class NumpyMlpInference(InferenceBackend):
    """Runs the policy network of a SeparateMlp, with its normalisation of observations, if any."""

    name: ClassVar[str] = "numpy"
    tolerance: ClassVar[float] = 1e-4

    def __init__(self, model: AgentModel, num_slots: int) -> None:
        """Prepares for `model`, whose present weights it starts from.

        Raises:
          UnsuitableModelError: it is another network, or uses previous actions.
        """
        prefix = ""
        self._clip = 0.0
        self._moments_of: dict[str, str] = {}
        network = model
        if isinstance(model, NormalisedModel):
            network = model.network
            prefix = "network."
            self._clip = model.observation_clip
            self._moments_of = {
                name: f"observation_moments.{index}." for index, name in enumerate(model.leaf_names)
            }
        if type(network) is not SeparateMlp:
            raise UnsuitableModelError("the network is no MLP without memory")
        if network.uses_previous_step:
            raise UnsuitableModelError("the network consumes previous actions")
        self._leaf_names = network.leaf_names
        self._scale = np.float32(network.observation_scale)
        layers = {
            f"{prefix}policy_network.{index}.": layer
            for index, layer in enumerate(network.policy_network)
            if isinstance(layer, nn.Linear)
        }
        self._names = (*layers, f"{prefix}policy_head.")
        self._hidden = [
            np.empty((num_slots, layer.out_features), np.float32) for layer in layers.values()
        ]
        self._is_tanh = any(isinstance(layer, nn.Tanh) for layer in network.policy_network)
        head = network.policy_head
        self._has_log_std = head.log_std is not None
        self._order = None if head.logit_order is None else head.logit_order.numpy()
        self._num_slots = num_slots
        self.load({name: value.numpy() for name, value in model.state_dict().items()})

    def load(self, weights: Mapping[str, Array]) -> None:
        """See InferenceBackend."""
        # Copies, laid out [in, out] for the product: `weights` stays the caller's.
        self._layers = [
            (np.array(weights[f"{name}weight"].T, order="C"), weights[f"{name}bias"].copy())
            for name in self._names
        ]
        if self._has_log_std:
            log_std = weights[f"{self._names[-1]}log_std"].clip(MIN_LOG_STD, MAX_LOG_STD)
            self._log_stds = np.broadcast_to(log_std, (self._num_slots, len(log_std)))
        self._normalisers = {
            name: _Normaliser(
                weights[f"{moments}mean"].copy(),
                1.0 / np.sqrt(weights[f"{moments}variance"] + VARIANCE_EPS),
            )
            for name, moments in self._moments_of.items()
        }

    def infer(self, inputs: StepInputs) -> Array:
        """See InferenceBackend."""
        rows = self._prepare(inputs.observations)
        *layers, (head_weight, head_bias) = self._layers
        for (weight, bias), out in zip(layers, self._hidden, strict=True):
            rows = np.dot(rows, weight, out=out[: len(rows)])
            rows += bias
            if self._is_tanh:
                np.tanh(rows, out=rows)
            else:
                np.maximum(rows, 0.0, out=rows)
        logits: Array = np.dot(rows, head_weight)
        logits += head_bias
        if self._has_log_std:
            logits = np.concatenate((logits, self._log_stds[: len(logits)]), axis=1)
        return logits if self._order is None else logits[:, self._order]

    def _prepare(self, observations: Mapping[str, Array]) -> Array:
        """Returns float32 [N, D]: leaves normalised, flattened, scaled and concatenated."""
        leaves = []
        for name in self._leaf_names:
            leaf = observations[name]
            if name in self._normalisers:
                mean, inverse_std = self._normalisers[name]
                # As RunningMoments.normalise: float64 and wide integers are shifted in float64.
                dtype = np.result_type(leaf.dtype, np.float32)
                leaf = (leaf - mean.astype(dtype)) * inverse_std.astype(dtype)
                leaf = leaf.clip(-self._clip, self._clip)
            rows = leaf.reshape(len(leaf), -1).astype(np.float32, copy=False)
            leaves.append(rows if self._scale == 1.0 else rows * self._scale)
        return leaves[0] if len(leaves) == 1 else np.concatenate(leaves, axis=1)
