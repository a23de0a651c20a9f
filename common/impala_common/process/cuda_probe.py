"""Finds out without importing torch whether this machine and this torch have the CUDA device.

For commands that check their settings before they start anything: importing torch takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path

from impala_common.errors import ConfigError

_VERSION = re.compile(r"^(cuda|hip)\b[^=]*=\s*(.+?)\s*$", re.MULTILINE)


def require_device(name: str, device: str) -> None:
    """Raises ConfigError if `device` (auto, cpu, cuda or cuda:N) is known to be missing.

    Args:
      name: of the setting or option, for the message.
      device: its value.
    """
    if not device.startswith("cuda"):
        return
    builds = _read_torch_builds()
    if builds is not None and not any(builds.values()):
        raise ConfigError(name, device, "cpu or auto", "the torch installed here is a CPU build")
    if builds is not None and builds.get("hip"):
        return  # AMD's driver has no such check
    count = _count_devices()
    if not count:
        raise ConfigError(name, device, "cpu or auto", "there is no CUDA device here")
    if int(device.partition(":")[2] or 0) >= count:
        raise ConfigError(name, device, f"below cuda:{count}")


def _read_torch_builds() -> dict[str, bool] | None:
    """Returns whether torch was built with "cuda" and "hip"; None if unknown."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        text = (Path(spec.submodule_search_locations[0]) / "version.py").read_text()
    except OSError:
        return None
    return {kind: value != "None" for kind, value in _VERSION.findall(text)} or None


def _count_devices() -> int:
    """Returns the number of devices of the CUDA driver for this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
