"""The encoder of the MinAtar paper, for small images such as [10, 10, C].

One convolution of 16 filters 3x3, then a dense layer of `feature_dim` (128 in the
paper); ReLU after each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from impala_common.models.initialisation import initialise_layers
from impala_common.models.inputs import prepare_image, require_image_layout
from impala_common.models.trunk import Encoder
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

MIN_SIDE = 3


class MinAtarCnnEncoder(Encoder):
    """One convolution and a dense layer."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.layout = require_image_layout(environment, "minatar_cnn", MIN_SIDE)
        self.observation_scale = spec.observation_scale
        self.num_features = spec.feature_dim
        self.convolution = nn.Sequential(
            nn.Conv2d(self.layout.num_channels, 16, kernel_size=3), nn.ReLU(inplace=True)
        )
        num_pixels = (self.layout.height - 2) * (self.layout.width - 2)
        self.dense = nn.Sequential(
            nn.Linear(16 * num_pixels, spec.feature_dim), nn.ReLU(inplace=True)
        )
        initialise_layers(self, spec.init_method, "relu")

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns float32 [T*B, feature_dim]."""
        pixels = prepare_image(
            observations, self.layout, self.observation_scale, torch.channels_last
        )
        features: Tensor = self.dense[1](self._apply_dense(self.convolution(pixels)))
        return features

    def _apply_dense(self, maps: Tensor) -> Tensor:
        """Applies the dense layer, whose weights count channels first, to maps of channels last.

        Either the maps or the weights are to be brought into the other's order: the smaller ones.
        """
        dense = self.dense[0]
        assert isinstance(dense, nn.Linear)
        if len(maps) <= dense.out_features:
            return functional.linear(maps.flatten(1), dense.weight, dense.bias)
        weight = dense.weight.view(-1, *maps.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        return functional.linear(maps.permute(0, 2, 3, 1).flatten(1), weight, dense.bias)
