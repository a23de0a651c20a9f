"""Batches from rollout storage to the device: pinned copies beside updates, frames gathered there.

`BatchLoader.load` is what the learner's threads call. The storage holds unrolls of 84x84x4
frames: each frame once with the index of its stacks, as actors send them.
"""

from __future__ import annotations

import mmap
import statistics
import threading
import time

import numpy as np
import torch

from benchmarks.gpu.step import Emit, StepSettings
from benchmarks.rigs.update_alone import ATARI, UpdateAlone, UpdateNetwork
from benchmarks.suite.section import Json
from impala_common.config import ModelConfig
from impala_common.models.registry import resolve_model_spec
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import EnvironmentSpec, TensorSpec, UnrollSpec
from impala_server.learner.batch_loader import BatchLoader
from impala_server.storage.layout import FRAME_INDEX, FRAMES, SlotViews, StorageLayout

_T = 20
_BATCH_SIZES = (32, 256)
_WINDOW_S = 2.0
_STACKS = EnvironmentSpec(
    (TensorSpec("observation", (4, 84, 84), "uint8"),), ActionSpec.discrete(6)
)
"""The same observations sent as whole stacks."""


def measure_copies(settings: StepSettings, emit: Emit) -> None:
    """Emits a row for each batch size: load alone, update alone, and both at the same time.

    Updates are the Nature CNN's in bfloat16. Where copies overlap updates, both at once take no
    longer than each alone; where they do not, `hidden_share` is near 0.
    """
    for batch_size in (2,) if settings.is_rehearsal else _BATCH_SIZES:
        loading = _Loading(ATARI, batch_size, settings)
        network = UpdateNetwork(
            name="nature_cnn",
            model="nature_cnn",
            environment=ATARI,
            unroll_length=loading.unroll_length,
            batch_size=batch_size,
        )
        updating = UpdateAlone(network, settings.device, torch.bfloat16)
        window_s = settings.window_s(_WINDOW_S)
        load_ms = loading.run(window_s)
        update_ms = updating.run(window_s) * updating.num_steps / 1e3
        load_beside_ms, update_beside_ms = _run_both(loading, updating, window_s)
        grown_ms = max(0.0, update_beside_ms - update_ms)
        emit(
            {
                "B": batch_size,
                "T": loading.unroll_length,
                "load_ms": load_ms,
                "update_ms": update_ms,
                "load_beside_update_ms": load_beside_ms,
                "update_beside_load_ms": update_beside_ms,
                "hidden_share": max(0.0, 1.0 - grown_ms / load_beside_ms),
                "mb": loading.num_bytes / 1e6,
                "is_pinned": loading.is_pinned,
            }
        )


def measure_frames(settings: StepSettings, emit: Emit) -> None:
    """Emits a row for each batch size: frames once and gathered on the device, against stacks."""
    for batch_size in (2,) if settings.is_rehearsal else _BATCH_SIZES:
        ways = {"gathered": ATARI, "stacks": _STACKS}
        row: Json = {"B": batch_size}
        for name, environment in ways.items():
            loading = _Loading(environment, batch_size, settings)
            loading.run(0.0)
            row |= {
                f"{name}_ms": loading.run(settings.window_s(_WINDOW_S)),
                f"{name}_mb": loading.num_bytes / 1e6,
            }
        row["is_equal"] = _is_gathered_right(settings, batch_size)
        row["gain"] = row["stacks_ms"] / row["gathered_ms"]
        emit(row)


class _Loading:
    """A batch in storage that is loaded again and again."""

    def __init__(
        self, environment: EnvironmentSpec, batch_size: int, settings: StepSettings
    ) -> None:
        self.unroll_length = 3 if settings.is_rehearsal else _T
        self.spec = UnrollSpec(self.unroll_length, environment)
        layout = StorageLayout(self.spec, batch_size, 1)
        self._buffer = memoryview(mmap.mmap(-1, layout.num_bytes))
        self.views = layout.make_views(self._buffer)[0]
        _fill(self.views, self.unroll_length)
        model = resolve_model_spec(ModelConfig(model="nature_cnn"), environment)
        self.loader = BatchLoader(layout, self._buffer, model, torch.device(settings.device))
        self.is_pinned = settings.device == "cuda" and self._is_pinned()
        self.num_bytes = sum(view.nbytes for view in self.views.values())

    def run(self, window_s: float) -> float:
        """Loads for `window_s`, twice at least; returns the median ms of a load."""
        taken: list[float] = []
        end_s = time.perf_counter() + window_s
        while len(taken) < 2 or time.perf_counter() < end_s:
            start_s = time.perf_counter()
            self.loader.load(0)
            taken.append(1e3 * (time.perf_counter() - start_s))
        return statistics.median(taken)

    def _is_pinned(self) -> bool:
        """Returns whether CUDA knows the storage as page-locked memory."""
        return bool(torch.from_numpy(self.views[FRAMES]).is_pinned())


def _fill(views: SlotViews, unroll_length: int) -> None:
    """Writes random frames, and the index of stacks over an episode without an end."""
    random = np.random.default_rng(1)
    for name, view in views.items():
        if view.dtype == np.uint8 and view.ndim > 3:
            view[...] = random.integers(0, 256, view.shape, np.uint8)
        elif name == FRAME_INDEX:
            stack = view.shape[-1]
            rows = np.arange(unroll_length + 1)[:, None, None]
            view[...] = rows + np.arange(stack)[None, None, :]


def _run_both(loading: _Loading, updating: UpdateAlone, window_s: float) -> tuple[float, float]:
    """Returns the ms of a load and of an update while a thread loads and this one updates."""
    has_ended = threading.Event()
    loads_ms: list[float] = []

    def load() -> None:
        while not has_ended.is_set():
            loads_ms.append(loading.run(0.0))

    thread = threading.Thread(target=load, name="impala-prefetch")
    thread.start()
    try:
        update_ms = updating.run(window_s) * updating.num_steps / 1e3
    finally:
        has_ended.set()
        thread.join()
    return statistics.median(loads_ms), update_ms


def _is_gathered_right(settings: StepSettings, batch_size: int) -> bool:
    """Returns whether stacks gathered on the device are those that numpy gathers."""
    loading = _Loading(ATARI, batch_size, settings)
    observations = loading.loader.load(0).inputs.observations["observation"].cpu().numpy()
    frames, index = loading.views[FRAMES], loading.views[FRAME_INDEX]
    wanted = frames[np.arange(batch_size)[None, :, None], index]
    return bool(np.array_equal(observations, wanted))
