"""The convolutional encoder of DQN's Nature paper, for images of 36 pixels and more.

Convolutions 32 of 8x8 stride 4, 64 of 4x4 stride 2, 64 of 3x3 stride 1, then a dense
layer of `feature_dim` (512 in the paper); ReLU after each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from impala_common.models.initialisation import initialise_layers
from impala_common.models.inputs import prepare_image, require_image_layout
from impala_common.models.trunk import Encoder
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

MIN_SIDE = 36
"""Smallest image side that leaves one pixel after the convolutions."""


class NatureCnnEncoder(Encoder):
    """Three convolutions and a dense layer."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.layout = require_image_layout(environment, "nature_cnn", MIN_SIDE)
        self.observation_scale = spec.observation_scale
        self.num_features = spec.feature_dim
        self.convolutions = nn.Sequential(
            nn.Conv2d(self.layout.num_channels, 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, stride=1),
            nn.ReLU(),
        )
        num_pixels = _count_output(self.layout.height) * _count_output(self.layout.width)
        self.dense = nn.Sequential(nn.Linear(64 * num_pixels, spec.feature_dim), nn.ReLU())
        initialise_layers(self, spec.init_method, "relu")

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns float32 [T*B, feature_dim]."""
        pixels = prepare_image(
            observations, self.layout, self.observation_scale, torch.channels_last
        )
        features: Tensor = self.dense(self.convolutions(pixels).flatten(1))
        return features


def _count_output(side: int) -> int:
    """Returns the side of the last convolution's output."""
    side = (side - 8) // 4 + 1
    side = (side - 4) // 2 + 1
    return side - 2
