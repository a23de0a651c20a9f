"""Resolves device names, and limits CPU threads."""

from __future__ import annotations

import torch

from impala_common.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Returns the device for a setting of auto, cpu, cuda or cuda:N.

    Raises:
      ConfigError: the machine does not have the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", name, "cpu or auto", "torch sees no CUDA device here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError("device", name, f"below cuda:{torch.cuda.device_count()}")
    return device
