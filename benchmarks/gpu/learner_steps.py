"""The learner alone on the device: updates by network, precision and batch; V-trace's recursion.

How busy the device is is measured in two ways, since either may be missing: the time of its
kernels by torch's profiler / the wall time of an update, and the utilisation that the driver
reports while updates run (the share of its sample periods in which a kernel ran).
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import threading
from collections.abc import Iterator

import torch

from benchmarks.gpu.step import Emit, StepSettings
from benchmarks.rigs.update_alone import ATARI, UpdateAlone, UpdateNetwork
from benchmarks.sections.update import measure_vtrace
from benchmarks.suite.section import BenchSettings, Json, summarise
from impala_common.errors import ImpalaError

_T = 20
_BATCH_SIZES = (32, 128, 256, 512, 1024)
_NUM_WINDOWS = 3
_WINDOW_S = 0.5
_SAMPLE_MS = 100
_COMPILED = {"compiled": "default", "graphs": "reduce-overhead"}
_SHAPES = ((20, 32), (20, 256), (80, 32), (80, 256))


def measure_learner(settings: StepSettings, emit: Emit) -> None:
    """Emits a row for each batch size: `settings.words` are a network and a variant.

    The product itself neither compiles nor captures graphs: these variants say what it would gain.
    """
    model, variant = settings.words
    precision, _, compilation = variant.partition("_")
    compiled = _COMPILED.get(compilation, "")
    # Where an update is shorter than a trip to a core that sleeps, more CPU threads only disturb.
    torch.set_num_threads(1)
    sizes: tuple[int, ...] = _BATCH_SIZES
    if compiled:  # each size is compiled anew
        sizes = (256, 32) if model == "nature_cnn" else (256,)
    if settings.is_rehearsal:
        sizes, compiled = (1,), compiled and "aot_eager"
    for batch_size in sizes:
        network = UpdateNetwork(
            name=model,
            model=model,
            environment=ATARI,
            unroll_length=1 if settings.is_rehearsal else _T,
            batch_size=batch_size,
        )
        row: Json = {"network": model, "variant": variant, "T": network.unroll_length}
        row["B"] = batch_size
        try:
            updating = UpdateAlone(network, settings.device, getattr(torch, precision), compiled)
            row |= _measure(updating, settings)
            del updating
        except (ImpalaError, RuntimeError) as error:  # no memory for this size: the next ones
            row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        emit(row)
        if settings.device == "cuda":
            torch.cuda.empty_cache()


def _measure(updating: UpdateAlone, settings: StepSettings) -> Json:
    window_s = settings.window_s(_WINDOW_S)
    with _sample_utilisation(settings.device) as samples:
        num_windows = 1 if settings.is_rehearsal else _NUM_WINDOWS
        walls = [updating.run(window_s) for _ in range(num_windows)]
    wall_us = summarise(walls)
    row: Json = {
        "wall_us": wall_us,
        "update_ms": round(wall_us["median"] * updating.num_steps / 1e3, 3),
        "steps_per_s": round(1e6 / wall_us["median"]),
        "cpu_us": statistics.median(updating.cpu_us),
        "first_call_s": round(updating.first_call_s, 2),
        "busy_by_driver": statistics.median(samples) / 100 if samples else None,
        "busy_by_profiler": None,
    }
    if settings.device == "cuda":
        row["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        torch.cuda.reset_peak_memory_stats()
        with contextlib.suppress(RuntimeError):  # no access to the device's counters
            kernel_us = updating.kernel_us()
            row["busy_by_profiler"] = kernel_us / wall_us["median"] if kernel_us else None
    return row


@contextlib.contextmanager
def _sample_utilisation(device: str) -> Iterator[list[float]]:
    """A context in which the driver's utilisation of the device is put into a list, in percent."""
    samples: list[float] = []
    if device != "cuda":
        yield samples
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    command += ["-i", "0", "-lms", str(_SAMPLE_MS)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except OSError:
        yield samples
        return
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            with contextlib.suppress(ValueError):
                samples.append(float(line))

    reader = threading.Thread(target=read, name="utilisation")
    reader.start()
    try:
        yield samples
    finally:
        process.terminate()
        process.wait()
        reader.join()
        lines.close()


def measure_scan(settings: StepSettings, emit: Emit) -> None:
    """Emits a row for each shape: V-trace's recursion as a scan and as a loop over T."""
    windows = BenchSettings(num_windows=2 if settings.is_rehearsal else 5)
    for shape in _SHAPES[:1] if settings.is_rehearsal else _SHAPES:
        row = measure_vtrace(settings.device, windows, shape)
        emit({"T": shape[0], "B": shape[1], **row})
