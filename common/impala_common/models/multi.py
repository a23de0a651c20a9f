"""The encoder for observations with several leaves: images and vectors side by side.

Each image goes through convolutions of its own (those of nature_cnn, or of minatar_cnn where
it is small) to `feature_dim` features; every other leaf is flattened. All are concatenated,
followed by a dense layer of `feature_dim` with ReLU. Pixels (uint8 of rank 2 or more) are always
scaled by 1/255; `observation_scale` applies to all other leaves.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from impala_common.models.initialisation import initialise_layers
from impala_common.models.inputs import (
    PIXEL_SCALE,
    find_leaf_layout,
    holds_pixels,
    prepare_vector,
)
from impala_common.models.minatar_cnn import MIN_SIDE, MinAtarCnnEncoder
from impala_common.models.nature_cnn import MIN_SIDE as MIN_LARGE_SIDE
from impala_common.models.nature_cnn import NatureCnnEncoder
from impala_common.models.trunk import Encoder
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec


class MultiEncoder(Encoder):
    """One encoder per image, the other leaves unchanged, a dense layer over all."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.num_features = spec.feature_dim
        self.observation_scale = spec.observation_scale
        images = find_images(environment)
        self.images = nn.ModuleList(_make_image_encoder(leaf, spec, environment) for leaf in images)
        vectors = [leaf for leaf in environment.observation_leaves if leaf not in images]
        self.pixel_names = tuple(leaf.name for leaf in vectors if holds_pixels(leaf))
        self.vector_names = tuple(leaf.name for leaf in vectors if not holds_pixels(leaf))
        width = len(images) * spec.feature_dim + sum(math.prod(leaf.shape) for leaf in vectors)
        self.dense = nn.Sequential(nn.Linear(width, spec.feature_dim), nn.ReLU())
        initialise_layers(self.dense, spec.init_method, "relu")

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns float32 [T*B, feature_dim]."""
        parts = [image(observations) for image in self.images]
        if self.pixel_names:
            parts.append(prepare_vector(observations, self.pixel_names, PIXEL_SCALE))
        if self.vector_names:
            parts.append(prepare_vector(observations, self.vector_names, self.observation_scale))
        features: Tensor = self.dense(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        return features


def find_images(environment: EnvironmentSpec) -> tuple[TensorSpec, ...]:
    """Returns the leaves that convolutions can process: rank 3, sides of at least 3."""
    found = []
    for leaf in environment.observation_leaves:
        layout = find_leaf_layout(leaf, environment.frame_stack)
        if layout is not None and layout.min_side >= MIN_SIDE:
            found.append(leaf)
    return tuple(found)


def _make_image_encoder(leaf: TensorSpec, spec: ModelSpec, environment: EnvironmentSpec) -> Encoder:
    alone = dataclasses.replace(environment, observation_leaves=(leaf,))
    if holds_pixels(leaf):
        spec = dataclasses.replace(spec, observation_scale=PIXEL_SCALE)
    layout = find_leaf_layout(leaf, environment.frame_stack)
    assert layout is not None
    is_large = layout.min_side >= MIN_LARGE_SIDE
    return NatureCnnEncoder(spec, alone) if is_large else MinAtarCnnEncoder(spec, alone)
