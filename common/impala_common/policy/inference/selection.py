"""make_inference: chooses the inference backend, by name or by measuring for half a second.

Called once per session, before the first step. Each backend is first compared with eager
on random data and weights: one that fails, or differs by more than its tolerance, is never
used. What is measured is a step together with its share of taking over new weights, in CPU
time of this thread: the machine is shared with other actors and the learner.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from impala_common.config.job import InferenceBackendName
from impala_common.models.contract import AgentModel
from impala_common.policy.inference.backend import (
    Array,
    InferenceBackend,
    StepInputs,
    UnsuitableModelError,
)
from impala_common.policy.inference.bfloat16 import Bfloat16Inference
from impala_common.policy.inference.eager import EagerInference
from impala_common.policy.inference.numpy_mlp import NumpyMlpInference
from impala_common.spec.specs import EnvironmentSpec

_LOG = logging.getLogger(__name__)

_PROBE_CPU_S = 0.15
_PROBE_WALL_S = 0.6
_MIN_ROUNDS = 3
_HOPELESS = 3.0
"""A backend whose calls take so many times eager's is not measured further."""
_MIN_GAIN = 1.1
"""Eager is left for a backend only where it is so many times as fast."""
_NUM_COMPARED_STEPS = 3


class ProbedBackend(NamedTuple):
    """What was measured of one backend.

    Attributes:
      call_ms: one step of all slots.
      load_ms: taking over new weights.
    """

    backend: InferenceBackend
    call_ms: float
    load_ms: float

    def cost_ms(self, unroll_length: int) -> float:
        """Returns what a step costs where every unroll brings new weights."""
        return self.call_ms + self.load_ms / unroll_length


def make_inference(
    name: InferenceBackendName,
    model: AgentModel,
    environment: EnvironmentSpec,
    num_slots: int,
    unroll_length: int,
    device: str = "cpu",
) -> InferenceBackend:
    """Returns the backend `name`, or eager where that cannot run `model`.

    Args:
      name: auto: the fastest of those that are ready at once.
      model: the network; eager runs it itself, others a copy. Its weights stay as they are.
      environment: what it consumes.
      num_slots: N.
      unroll_length: T; new weights come at most once in so many steps.
      device: of eager; all others are for the CPU, so that auto is eager on a GPU.
    """
    eager = EagerInference(model, num_slots, device)
    if name == "eager" or (name == "auto" and device != "cpu"):
        return eager
    weights = {key: value.cpu().numpy().copy() for key, value in model.state_dict().items()}
    inputs = [draw_inputs(environment, num_slots, seed) for seed in range(_NUM_COMPARED_STEPS)]
    try:
        if name == "auto":
            return _choose(eager, model, weights, inputs, unroll_length)
        try:
            backend = _make(name, model, environment, num_slots)
            _compare(backend, eager, weights, inputs)
        except UnsuitableModelError as error:
            _LOG.warning("inference backend %s cannot be used here: %s; eager is", name, error)
            return eager
        return backend
    finally:
        eager.load(weights)
        eager.reset()


def probe(
    backends: list[InferenceBackend], weights: Mapping[str, Array], inputs: StepInputs
) -> list[ProbedBackend]:
    """Measures backends in turn for half a second or so; the least time of each counts.

    Args:
      backends: the first is what others are hopeless against.
      weights: loaded again and again.
      inputs: of one step.
    """
    # With several threads the CPU time of this one says nothing.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    calls, loads = [np.inf] * len(backends), [np.inf] * len(backends)
    start_cpu_s, start_s = clock(), time.perf_counter()
    num_rounds = 0
    while num_rounds < _MIN_ROUNDS or (
        clock() - start_cpu_s < _PROBE_CPU_S and time.perf_counter() - start_s < _PROBE_WALL_S
    ):
        for index, backend in enumerate(backends):
            if num_rounds and calls[index] > _HOPELESS * calls[0]:
                continue
            loads[index] = min(loads[index], _time(lambda b=backend: b.load(weights), clock))  # type: ignore[misc]
            calls[index] = min(calls[index], _time(lambda b=backend: b.infer(inputs), clock))  # type: ignore[misc]
        num_rounds += 1
    return [
        ProbedBackend(backend, 1e3 * call_s, 1e3 * load_s)
        for backend, call_s, load_s in zip(backends, calls, loads, strict=True)
    ]


def _choose(
    eager: EagerInference,
    model: AgentModel,
    weights: Mapping[str, Array],
    inputs: list[StepInputs],
    unroll_length: int,
) -> InferenceBackend:
    num_slots = len(inputs[0].is_first)
    backends: list[InferenceBackend] = [eager]
    makers: tuple[Callable[[], InferenceBackend], ...] = (
        lambda: NumpyMlpInference(model, num_slots),
        lambda: Bfloat16Inference(model, num_slots),
    )
    for make in makers:
        try:
            backend = make()
            _compare(backend, eager, weights, inputs)
        except UnsuitableModelError as error:
            _LOG.debug("not used for inference: %s", error)
        else:
            backends.append(backend)
    if len(backends) == 1:
        _LOG.info("inference: eager, the only backend for this network")
        return eager
    probed = probe(backends, weights, inputs[0])
    best = min(probed, key=lambda one: one.cost_ms(unroll_length))
    if best.cost_ms(unroll_length) * _MIN_GAIN > probed[0].cost_ms(unroll_length):
        best = probed[0]
    _LOG.info(
        "inference: %s; ms per call of %d slots (and per new weights): %s",
        best.backend.name,
        num_slots,
        ", ".join(f"{p.backend.name} {p.call_ms:.3f} ({p.load_ms:.3f})" for p in probed),
    )
    best.backend.load(weights)
    best.backend.reset()
    return best.backend


def _make(
    name: InferenceBackendName, model: AgentModel, environment: EnvironmentSpec, num_slots: int
) -> InferenceBackend:
    if name == "numpy":
        return NumpyMlpInference(model, num_slots)
    if name == "bfloat16":
        return Bfloat16Inference(model, num_slots)
    # Late: it imports what only some have installed.
    from impala_common.policy.inference.onnx_runtime import OnnxRuntimeInference

    return OnnxRuntimeInference(model, environment, num_slots, torch.get_num_threads())


def _compare(
    backend: InferenceBackend,
    eager: EagerInference,
    weights: Mapping[str, Array],
    inputs: list[StepInputs],
) -> None:
    """Raises UnsuitableModelError unless `backend` gives eager's logits after a change of weights.

    With other weights than those it was made with: what it has kept of them shows.
    """
    random = np.random.default_rng(0)
    changed = {
        name: np.asarray(array * (1.0 + 0.1 * random.random(array.shape)) + 0.01, array.dtype)
        for name, array in weights.items()
    }
    try:
        for each in (eager, backend):
            each.reset()
            each.load(changed)
        for step in inputs:
            wanted, got = eager.infer(step), backend.infer(step)
            difference = compute_difference(wanted, got)
            if not difference <= backend.tolerance:
                raise UnsuitableModelError(
                    f"its logits differ by {difference:.3g}, the tolerance is {backend.tolerance:g}"
                )
        backend.load(weights)
        backend.reset()
    except UnsuitableModelError:
        raise
    except Exception as error:  # a network of one's own, or a library on this processor
        raise UnsuitableModelError(f"{type(error).__name__}: {error}") from error


def compute_difference(wanted: Array, got: Array) -> float:
    """Returns the largest difference, as a share of the largest number wanted if above 1."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return np.inf
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    return float(np.abs(wanted.astype(np.float64) - got).max(initial=0.0)) / scale


def draw_inputs(environment: EnvironmentSpec, num_slots: int, seed: int) -> StepInputs:
    """Returns random inputs of one step."""
    random = np.random.default_rng(seed)
    observations = {
        leaf.name: _draw(random, (num_slots, *leaf.shape), leaf.dtype)
        for leaf in environment.observation_leaves
    }
    action = environment.action.tensor
    return StepInputs(
        observations,
        random.random(num_slots) < 0.3,
        np.zeros((num_slots, *action.shape), action.dtype),
        random.standard_normal(num_slots).astype(np.float32),
    )


def _draw(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype.startswith("float"):
        return random.standard_normal(shape).astype(dtype)
    if dtype == "bool":
        return random.random(shape) < 0.3
    # Small numbers fit whatever integers mean; pixels are any byte.
    return random.integers(0, 256 if dtype == "uint8" else 2, shape).astype(dtype)


def _time(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start_s = clock()
    call()
    return clock() - start_s
