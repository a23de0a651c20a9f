"""Which device, driver and versions the steps run on; the command decides by it what they do."""

from __future__ import annotations

import os

import torch

from benchmarks.gpu.step import Emit, StepSettings
from benchmarks.suite.machine import describe_machine


def describe_device(unused_settings: StepSettings, emit: Emit) -> None:
    """Emits one row: the machine, and the device where there is one."""
    row = {"machine": describe_machine(), "has_cuda": torch.cuda.is_available()}
    if row["has_cuda"]:
        properties = torch.cuda.get_device_properties(0)
        row |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "has_nccl": torch.distributed.is_nccl_available(),
            "has_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cpu_cores": len(os.sched_getaffinity(0)),
        }
    emit(row)
