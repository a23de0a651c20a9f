"""The learner's update alone: precisions and compilation side by side, and V-trace's scan.

`Updater.apply` on random batches that are on the device already, one thread on a CPU. The
convolutions run channels-last in all variants, as they always do. On CUDA, how busy the device is
comes from torch's profiler: the time of its kernels in an update / the wall time of one without it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.suite.section import BenchSettings, Json, interleave, summarise
from impala_common.config import ModelConfig, TrainConfig
from impala_common.models.contract import ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.numerics import vtrace
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import EnvironmentSpec, TensorSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import make_optimizer
from impala_server.learner.update import Updater

TITLE = "The update alone"

_ATARI = EnvironmentSpec(
    (TensorSpec("observation", (4, 84, 84), "uint8"),), ActionSpec.discrete(6), frame_stack=4
)
_CARTPOLE = EnvironmentSpec((TensorSpec("observation", (4,), "float32"),), ActionSpec.discrete(2))
# Weights stay as they began, so that every update is as expensive as the first.
_LEARNING_RATE = 1e-12
_VTRACE_SHAPE = (80, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Network:
    """A network and a batch for it."""

    name: str
    model: str
    environment: EnvironmentSpec
    unroll_length: int
    batch_size: int
    has_encoder: bool = True


_CPU_NETWORKS = (
    _Network(name="nature_b32", model="nature_cnn", environment=_ATARI, unroll_length=20,
             batch_size=32),
    _Network(name="resnet_b4", model="impala_resnet", environment=_ATARI, unroll_length=20,
             batch_size=4),
    _Network(name="mlp_b8", model="mlp", environment=_CARTPOLE, unroll_length=32, batch_size=8,
             has_encoder=False),
    _Network(name="mlp_b256", model="mlp", environment=_CARTPOLE, unroll_length=32, batch_size=256,
             has_encoder=False),
)  # fmt: skip
_CUDA_NETWORKS = (
    dataclasses.replace(_CPU_NETWORKS[0], name="nature_b256", batch_size=256),
    dataclasses.replace(_CPU_NETWORKS[1], name="resnet_b256", batch_size=256),
    *_CPU_NETWORKS,
)


def measure(settings: BenchSettings) -> Json:
    """Measures every network on the CPU, and on CUDA where there is one."""
    torch.set_num_threads(1)
    rows = [_measure_network(network, "cpu", settings) for network in _CPU_NETWORKS]
    scans = [_measure_vtrace("cpu", settings)]
    if torch.cuda.is_available():
        rows += [_measure_network(network, "cuda", settings) for network in _CUDA_NETWORKS]
        scans.append(_measure_vtrace("cuda", settings))
    return {"rows": rows, "vtrace": scans}


def render(result: Json) -> str:
    """Returns the table of variants and that of V-trace."""
    lines = [
        "`Updater.apply` on a batch that is there; one thread on a CPU. Medians of windows, "
        "ratios are of CPU time on a CPU. The first call of a compiled variant is what compilation "
        "costs a run, with what was in the cache on disk.\n",
        "| | device | variant | CPU us/step | wall us/step | steps/s | to float32 | first call, s "
        "| device busy |",
        "|---" * 9 + "|",
    ]
    for row in result["rows"]:
        judged = "wall_us" if row["device"] == "cuda" else "cpu_us"
        base = row["variants"]["float32"][judged]["median"]
        for name, variant in row["variants"].items():
            wall_us = variant["wall_us"]["median"]
            busy = f"{variant['busy']:.0%}" if variant["busy"] is not None else "-"
            lines.append(
                f"| {row['name']} | {row['device']} | {name} "
                f"| {variant['cpu_us']['median']:.2f} | {wall_us:.2f} | {1e6 / wall_us:,.0f} "
                f"| {base / variant[judged]['median']:.2f}x "
                f"| {variant['first_call_s']:.1f} | {busy} |"
            )
    lines += [
        "",
        "| V-trace's recursion | device | loop, us | scan, us | ratio |",
        "|---" * 5 + "|",
    ]
    for scan in result["vtrace"]:
        loop_us, scan_us = scan["us"]["loop"]["median"], scan["us"]["scan"]["median"]
        lines.append(
            f"| T {_VTRACE_SHAPE[0]}, B {_VTRACE_SHAPE[1]} | {scan['device']} | {loop_us:.0f} "
            f"| {scan_us:.0f} | {loop_us / scan_us:.1f}x |"
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


class _Variant:
    """One network in one precision, compiled or not."""

    def __init__(
        self, network: _Network, device: str, dtype: torch.dtype, is_compiled: bool
    ) -> None:
        config = TrainConfig(model=ModelConfig(model=network.model))
        spec = resolve_model_spec(config.model, network.environment)
        model = make_model(spec, network.environment, seed=1).to(device)
        if is_compiled:
            model.compile()
        optimizer = make_optimizer(config.optimizer, model)
        self._updater = Updater(config, model, optimizer, network.environment.action, dtype)
        self._batch = _make_batch(network, device)
        self._device = device
        self.cpu_us: list[float] = []
        start_s = time.perf_counter()
        self._update()
        self.first_call_s = time.perf_counter() - start_s
        self._update()

    def run(self, window_s: float) -> float:
        """Updates for `window_s`, twice at least; returns wall us per step, notes those of CPU."""
        num_updates = 0
        cpu_s, start_s = time.process_time(), time.perf_counter()
        while num_updates < 2 or time.perf_counter() < start_s + window_s:
            self._update()
            num_updates += 1
        passed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        num_steps = num_updates * self._batch.num_steps
        self.cpu_us.append(1e6 * cpu_s / num_steps)
        return 1e6 * passed_s / num_steps

    def kernel_us(self, num_updates: int = 5) -> float | None:
        """Returns the us per step in which CUDA kernels ran; None on a CPU."""
        if self._device == "cpu":
            return None
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(num_updates):
                self._update()
        total_us = sum(event.self_device_time_total for event in profiler.key_averages())
        return float(total_us) / (num_updates * self._batch.num_steps)

    def _update(self) -> None:
        result = self._updater.apply(self._batch, _LEARNING_RATE)
        if not result.is_applied:
            raise RuntimeError(f"an update was not applied: {result}")
        if self._device == "cuda":
            torch.cuda.synchronize()


def _measure_network(network: _Network, device: str, settings: BenchSettings) -> Json:
    # Compiling takes a minute and more: once on a CPU, where it is worth looking at all.
    compiles = not settings.is_quick and (device == "cuda" or network.name == "nature_b32")
    dtypes = {"float32": torch.float32}
    if network.has_encoder:
        dtypes["bfloat16"] = torch.bfloat16
    variants: dict[str, _Variant] = {}
    for name, dtype in dtypes.items():
        variants[name] = _Variant(network, device, dtype, is_compiled=False)
        if compiles:
            variants[f"{name}, compiled"] = _Variant(network, device, dtype, is_compiled=True)
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


def _window(variant: _Variant, window_s: float) -> Callable[[], float]:
    return lambda: variant.run(window_s)


def _measure_vtrace(device: str, settings: BenchSettings) -> Json:
    """Measures the recursion as V-trace computes it beside a step-by-step loop."""
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randn(_VTRACE_SHAPE, generator=generator).to(device)
    factors = torch.rand(_VTRACE_SHAPE, generator=generator).to(device)
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


def _make_batch(network: _Network, device: str) -> Batch:
    random = np.random.default_rng(1)
    (leaf,) = network.environment.observation_leaves
    rows, columns = network.unroll_length, network.batch_size
    shape = (rows + 1, columns, *leaf.shape)
    if leaf.dtype == "uint8":
        observations = torch.from_numpy(random.integers(0, 256, shape, np.uint8))
    else:
        observations = torch.from_numpy(random.standard_normal(shape, np.float32))
    action = network.environment.action
    actions = torch.from_numpy(random.integers(0, action.num_logits, (rows, columns)))
    rewards = torch.from_numpy(random.standard_normal((rows, columns), np.float32))
    no = torch.zeros(rows, columns, dtype=torch.bool, device=device)
    inputs = ModelInputs(
        {leaf.name: observations.to(device)},
        torch.zeros(rows + 1, columns, dtype=torch.bool, device=device),
        torch.zeros(rows + 1, columns, dtype=torch.int64, device=device),
        torch.zeros(rows + 1, columns, device=device),
    )
    return Batch(
        inputs=inputs,
        initial_agent_state=(),
        actions=actions.to(device),
        behaviour_policy_logits=torch.zeros(rows, columns, action.num_logits, device=device),
        rewards=rewards.to(device),
        terminated=no,
        is_padding=no,
        policy_versions=np.zeros(columns, np.int64),
        num_steps=rows * columns,
    )
