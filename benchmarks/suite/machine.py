"""What a figure was measured on: goes beside every figure that is kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
_PACKAGES = (
    "torch",
    "numpy",
    "grpcio",
    "protobuf",
    "gymnasium",
    "ale-py",
    "minatar",
    "mujoco",
    "minigrid",
)


def describe_machine() -> dict[str, Any]:  # Any: JSON
    """Returns processor, GPU, cores, versions and commit."""
    return {
        "processor": _processor(),
        "gpu": _gpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "has_local_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def save(name: str, value: dict[str, Any]) -> Path:  # Any: JSON
    """Writes a result to docs/results/NAME.json and returns the path."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **value}, indent=1) + "\n")
    return path


def read_runs(name: str) -> list[dict[str, Any]]:
    """Returns the runs of docs/results/NAME.json, or none; each names the processor it was made on.

    `save` describes one machine, and runs that are added later may be made on another.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    result = json.loads(path.read_text())
    return [{"processor": result["machine"]["processor"]} | run for run in result["runs"]]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(part.split(":", 1) for line in lines if ":" in (part := line))
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = named.get("flags", "").split()
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    model = named.get("model name", platform.processor())
    family = named.get("cpu family", "?")
    return f"{model} (family {family}; {', '.join(units)})"


def _gpu() -> str:
    """Returns name and driver of the GPUs, "" where there is none; without loading torch."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(done.stdout.split("\n")).strip("; ")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
