"""The large encoder of the IMPALA paper (arXiv 1802.01561, figure 3 right).

Three sections of 16, 32 and 32 channels, each a 3x3 convolution, a 3x3 max-pooling of
stride 2 and two residual blocks of two convolutions: 15 convolutions in all, then a
dense layer of `feature_dim` (256 in the paper).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from impala_common.models.initialisation import initialise_layers
from impala_common.models.inputs import prepare_image, require_image_layout
from impala_common.models.trunk import Encoder
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

MIN_SIDE = 4
SECTION_CHANNELS = (16, 32, 32)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1)
        self.second = nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns a tensor of the input's shape."""
        hidden = self.first(functional.relu(pixels))
        residual: Tensor = self.second(functional.relu(hidden, inplace=True))
        return pixels + residual


class ImpalaResnetEncoder(Encoder):
    """Three residual sections and a dense layer."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.layout = require_image_layout(environment, "impala_resnet", MIN_SIDE)
        self.observation_scale = spec.observation_scale
        self.num_features = spec.feature_dim
        sections: list[nn.Module] = []
        num_inputs, height, width = self.layout.num_channels, self.layout.height, self.layout.width
        for num_channels in SECTION_CHANNELS:
            sections.append(
                nn.Sequential(
                    nn.Conv2d(num_inputs, num_channels, kernel_size=3, padding=1),
                    nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
                    ResidualBlock(num_channels),
                    ResidualBlock(num_channels),
                )
            )
            num_inputs, height, width = num_channels, -(-height // 2), -(-width // 2)
        self.sections = nn.Sequential(*sections)
        self.dense = nn.Linear(num_inputs * height * width, spec.feature_dim)
        initialise_layers(self, spec.init_method, "relu")

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns float32 [T*B, feature_dim]."""
        pixels = prepare_image(
            observations, self.layout, self.observation_scale, torch.channels_last
        )
        features = functional.relu(self.sections(pixels)).flatten(1)
        return functional.relu(self.dense(features))
