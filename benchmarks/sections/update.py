"""The learner's update alone: precisions and compilation side by side, and V-trace's scan.

`Updater.apply` on random batches that are on the device already, one thread on a CPU. The
convolutions run channels-last in all variants, as they always do. On CUDA, how busy the device is
comes from torch's profiler: the time of its kernels in an update / the wall time of one without it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.rigs.update_alone import ATARI, CARTPOLE, MINATAR, UpdateAlone, UpdateNetwork
from benchmarks.suite.section import BenchSettings, Json, interleave, summarise
from impala_common.numerics import vtrace

TITLE = "The update alone"

_VTRACE_SHAPE = (80, 32)

_CPU_NETWORKS = (
    UpdateNetwork(
        name="nature_b32", model="nature_cnn", environment=ATARI, unroll_length=20, batch_size=32
    ),
    UpdateNetwork(
        name="resnet_b4", model="impala_resnet", environment=ATARI, unroll_length=20, batch_size=4
    ),
    UpdateNetwork(
        name="minatar_4_passes",
        model="minatar_cnn",
        environment=MINATAR,
        unroll_length=32,
        batch_size=32,
        preset="minatar",
    ),
    UpdateNetwork(
        name="mlp_b8",
        model="mlp",
        environment=CARTPOLE,
        unroll_length=32,
        batch_size=8,
        has_encoder=False,
    ),
    UpdateNetwork(
        name="mlp_b256",
        model="mlp",
        environment=CARTPOLE,
        unroll_length=32,
        batch_size=256,
        has_encoder=False,
    ),
)
_CUDA_NETWORKS = (
    dataclasses.replace(_CPU_NETWORKS[0], name="nature_b256", batch_size=256),
    dataclasses.replace(_CPU_NETWORKS[1], name="resnet_b256", batch_size=256),
    *_CPU_NETWORKS,
)


def measure(settings: BenchSettings) -> Json:
    """Measures every network on the CPU, and on CUDA where there is one."""
    torch.set_num_threads(1)
    rows = [_measure_network(network, "cpu", settings) for network in _CPU_NETWORKS]
    scans = [measure_vtrace("cpu", settings)]
    if torch.cuda.is_available():
        rows += [_measure_network(network, "cuda", settings) for network in _CUDA_NETWORKS]
        scans.append(measure_vtrace("cuda", settings))
    return {"rows": rows, "vtrace": scans}


def render(result: Json) -> str:
    """Returns the table of precisions, and lines of compilation and V-trace."""
    has_busy = any(
        v["busy"] is not None for row in result["rows"] for v in row["variants"].values()
    )
    lines = [
        "`Updater.apply` on a batch on the device: CPU time of one thread on a CPU, wall time on a "
        "GPU.\n",
        "| | device | variant | us/step |" + " device busy |" * has_busy,
        "|---" * (4 + has_busy) + "|",
    ]
    compiled = []
    for row in result["rows"]:
        judged = "wall_us" if row["device"] == "cuda" else "cpu_us"
        times = {name: variant[judged]["median"] for name, variant in row["variants"].items()}
        for name, variant in row["variants"].items():
            precision, _, is_compiled = name.partition(", ")
            if is_compiled:
                compiled.append(
                    f"{row['name']}, {row['device']}, {precision} "
                    f"{times[precision] / times[name]:.2f}x after {variant['first_call_s']:.1f} s"
                )
                continue
            busy = f"{variant['busy']:.0%}" if variant["busy"] is not None else "-"
            lines.append(
                f"| {row['name']} | {row['device']} | {name} | {times[name]:.2f} |"
                + f" {busy} |" * has_busy
            )
    if compiled:
        lines.append(f"\ntorch.compile, which is no setting, gains: {'; '.join(compiled)}.")
    for scan in result["vtrace"]:
        loop_us, scan_us = scan["us"]["loop"]["median"], scan["us"]["scan"]["median"]
        lines.append(
            f"\nV-trace's recursion, T {_VTRACE_SHAPE[0]}, B {_VTRACE_SHAPE[1]}, {scan['device']}: "
            f"loop {loop_us:.0f} us, scan {scan_us:.0f} us."
        )
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns CPU us per step by device, network and variant, gains, and V-trace's ratio."""
    found: dict[str, float] = {}
    for row in result["rows"]:
        label = f"{row['device']}_{row['name']}"
        for name, variant in row["variants"].items():
            key = name.replace(", ", "_")
            found[f"{label}_{key}_wall_us"] = variant["wall_us"]["median"]
            found[f"{label}_{key}_cpu_us"] = variant["cpu_us"]["median"]
            if variant["busy"] is not None:
                found[f"{label}_{key}_busy"] = variant["busy"]
    for scan in result["vtrace"]:
        loop_us, scan_us = scan["us"]["loop"]["median"], scan["us"]["scan"]["median"]
        found[f"{scan['device']}_vtrace_ratio"] = loop_us / scan_us
    return found


def _measure_network(network: UpdateNetwork, device: str, settings: BenchSettings) -> Json:
    # Compiling takes a minute and more: once on a CPU, where it is worth looking at all.
    compiles = not settings.is_quick and (device == "cuda" or network.name == "nature_b32")
    dtypes = {"float32": torch.float32}
    if network.has_encoder:
        dtypes["bfloat16"] = torch.bfloat16
    variants: dict[str, UpdateAlone] = {}
    for name, dtype in dtypes.items():
        variants[name] = UpdateAlone(network, device, dtype)
        if compiles:
            variants[f"{name}, compiled"] = UpdateAlone(network, device, dtype, compiled="default")
    walls = interleave(
        {name: _window(variant, settings.part_window_s) for name, variant in variants.items()},
        settings.num_windows,
    )
    row: Json = {"name": network.name, "device": device, "variants": {}}
    for name, variant in variants.items():
        wall_us = summarise(walls[name])
        kernel_us = variant.kernel_us()
        row["variants"][name] = {
            "wall_us": wall_us,
            "cpu_us": summarise(variant.cpu_us),
            "first_call_s": round(variant.first_call_s, 2),
            "busy": None if kernel_us is None else kernel_us / wall_us["median"],
        }
        print(f"{network.name} on {device}, {name}: {wall_us['median']:.2f} us/step", flush=True)
    return row


def _window(variant: UpdateAlone, window_s: float) -> Callable[[], float]:
    return lambda: variant.run(window_s)


def measure_vtrace(
    device: str, settings: BenchSettings, shape: tuple[int, int] = _VTRACE_SHAPE
) -> Json:
    """Measures the recursion over `shape` as V-trace computes it beside a step-by-step loop."""
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randn(shape, generator=generator).to(device)
    factors = torch.rand(shape, generator=generator).to(device)
    difference = _loop(offsets, factors) - vtrace.compute_suffix_recursion(offsets, factors)
    ways = {"loop": _loop, "scan": vtrace.compute_suffix_recursion}
    times = interleave(
        {name: _repeat(way, offsets, factors) for name, way in ways.items()}, settings.num_windows
    )
    return {
        "device": device,
        "max_difference": float(difference.abs().max()),
        "us": {name: summarise(values) for name, values in times.items()},
    }


def _loop(offsets: Tensor, factors: Tensor) -> Tensor:
    """Solves x_t = offset_t + factor_t x_{t+1} row by row, from the last."""
    rows = [offsets[-1]]
    for t in range(offsets.shape[0] - 2, -1, -1):
        rows.append(torch.addcmul(offsets[t], factors[t], rows[-1]))
    return torch.stack(rows[::-1])


def _repeat(
    way: Callable[[Tensor, Tensor], Tensor], offsets: Tensor, factors: Tensor, count: int = 100
) -> Callable[[], float]:
    """Returns what measures the us of a call; on CUDA, of the device's work as well."""

    def run() -> float:
        start_s = time.perf_counter()
        for _ in range(count):
            way(offsets, factors)
        if offsets.device.type == "cuda":
            torch.cuda.synchronize()
        return 1e6 * (time.perf_counter() - start_s) / count

    return run
