"""Inference backends of an actor side by side: time per step, and difference to the reference.

Every backend that runs a network, at several numbers of environment slots, windows in turn, in
CPU time of one thread. The reference is eager float32. New weights are counted apart.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.suite.section import BenchSettings, Json, interleave, summarise
from impala_common.config import ModelConfig
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.inference.backend import (
    Array,
    InferenceBackend,
    StepInputs,
    UnsuitableModelError,
)
from impala_common.policy.inference.bfloat16 import Bfloat16Inference
from impala_common.policy.inference.eager import EagerInference
from impala_common.policy.inference.numpy_mlp import NumpyMlpInference
from impala_common.policy.inference.onnx_runtime import OnnxRuntimeInference, make_graph
from impala_common.policy.inference.selection import compute_difference, draw_inputs
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import OBSERVATION, EnvironmentSpec, TensorSpec

TITLE = "Inference in an actor"

SLOTS = (1, 8, 32, 64, 256)
_TOLD_SLOTS = (1, 8, 32)
_NUM_COMPARED_STEPS = 5
_HEAD_GAIN = 500.0


def _environment(shape: tuple[int, ...], dtype: str, num_actions: int) -> EnvironmentSpec:
    leaf = TensorSpec(OBSERVATION, shape, dtype)
    frame_stack = 4 if dtype == "uint8" else 0
    return EnvironmentSpec((leaf,), ActionSpec.discrete(num_actions), frame_stack=frame_stack)


NETWORKS: dict[str, tuple[str, EnvironmentSpec, ModelConfig]] = {
    "cartpole": (
        "CartPole, MLP 2x64", _environment((4,), "float32", 2), ModelConfig(),
    ),
    "lstm": (
        "CartPole, MLP and LSTM 64",
        _environment((4,), "float32", 2),
        ModelConfig(recurrence="lstm"),
    ),
    "minatar": (
        "MinAtar, one convolution and 128",
        _environment((10, 10, 4), "bool", 3),
        ModelConfig(feature_dim=128),
    ),
    "nature": ("Pong, Nature CNN", _environment((4, 84, 84), "uint8", 6), ModelConfig()),
}  # fmt: skip
"""By name: title, environment, network."""


def measure(settings: BenchSettings) -> Json:
    """Measures all backends of all networks at all numbers of slots."""
    torch.set_num_threads(1)
    rows = []
    slots = SLOTS[:2] if settings.is_quick else SLOTS
    models = {
        name: make_model(resolve_model_spec(config, environment), environment, seed=0)
        for name, (_, environment, config) in NETWORKS.items()
    }
    for model in models.values():
        _make_decided(model)
    graphs = {name: _make_graph(model, NETWORKS[name][1]) for name, model in models.items()}
    for (name, (title, environment, _)), num_slots in itertools.product(NETWORKS.items(), slots):
        model = models[name]
        backends = _make_backends(model, environment, num_slots, graphs[name])
        inputs = [draw_inputs(environment, num_slots, seed) for seed in range(_NUM_COMPARED_STEPS)]
        differences = _compare(backends, inputs)
        # Without waiting long for the slowest: a share of a window for each of them.
        window_s = settings.part_window_s / len(slots)
        calls = {
            backend.name: functools.partial(
                _measure_window, functools.partial(backend.infer, inputs[0]), window_s / 2
            )
            for backend in backends
        }
        weights = _read_weights(model)
        loads = {
            backend.name: functools.partial(
                _measure_window, functools.partial(backend.load, weights), window_s / 10
            )
            for backend in backends
        }
        step_us = interleave(calls, settings.num_windows)
        load_us = interleave(loads, settings.num_windows)
        row: Json = {"network": name, "title": title, "slots": num_slots, "backends": {}}
        for backend in backends:
            row["backends"][backend.name] = {
                "us_per_call": summarise(step_us[backend.name]),
                "us_per_load": summarise(load_us[backend.name]),
                "difference": differences[backend.name],
            }
        rows.append(row)
        told = {n: round(v["us_per_call"]["median"], 1) for n, v in row["backends"].items()}
        print(f"{title}, {num_slots} slots: us per call {told}", flush=True)
    return {"rows": rows}


def render(result: Json) -> str:
    """Returns one table: a row for each network and backend, a column for each number of slots."""
    rows = [row for row in result["rows"] if row["slots"] in _TOLD_SLOTS]
    counts = list(dict.fromkeys(row["slots"] for row in rows))
    lines = [
        "CPU microseconds of one thread per agent step, by the number of slots of a call. The "
        "fastest is bold.\n",
        "| | backend | " + " | ".join(map(str, counts)) + " |",
        "|---" * (len(counts) + 2) + "|",
    ]
    for title in dict.fromkeys(row["title"] for row in rows):
        of_network = {row["slots"]: row["backends"] for row in rows if row["title"] == title}
        for number, name in enumerate(next(iter(of_network.values()))):
            cells = ["" if number else title, name]
            for num_slots, backends in of_network.items():
                times = {key: told["us_per_call"]["median"] for key, told in backends.items()}
                mark = "**" if times[name] == min(times.values()) else ""
                cells.append(f"{mark}{times[name] / num_slots:.2f}{mark}")
            lines.append("| " + " | ".join(cells) + " |")
    every = [(name, told) for row in result["rows"] for name, told in row["backends"].items()]
    loads_us = [told["us_per_load"]["median"] for _, told in every]
    differences = ", ".join(
        f"{name} {max(told['difference'] for key, told in every if key == name):.0e}"
        for name in dict.fromkeys(key for key, _ in every if key != "eager")
    )
    lines.append(
        f"\nTaking over new weights costs {min(loads_us):,.0f} to {max(loads_us):,.0f} us. Largest "
        "difference of a logit to eager float32, relative where logits are above 1: "
        f"{differences}."
    )
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns microseconds per step of each network's fastest backend, and its gain on eager."""
    named = {}
    for row in result["rows"]:
        medians = {name: told["us_per_call"]["median"] for name, told in row["backends"].items()}
        best = min(medians.values())
        named[f"{row['network']}_{row['slots']}_us_per_step"] = best / row["slots"]
        named[f"{row['network']}_{row['slots']}_gain"] = medians["eager"] / best
    return named


def _make_decided(model: AgentModel) -> None:
    """Makes the first policy's nearly equal logits those of a trained one, up to about 5."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("policy_head."):
                parameter.mul_(_HEAD_GAIN)


def _make_graph(model: AgentModel, environment: EnvironmentSpec) -> Any:  # Any: onnx.ModelProto
    """Returns the graph for onnxruntime, or None without the extra."""
    try:
        return make_graph(model, environment)
    except UnsuitableModelError as error:
        print(f"left out: onnxruntime: {error}")
        return None


def _make_backends(
    model: AgentModel,
    environment: EnvironmentSpec,
    num_slots: int,
    graph: Any,  # Any: onnx.ModelProto
) -> list[InferenceBackend]:
    backends: list[InferenceBackend] = [EagerInference(model, num_slots)]
    makers: tuple[Callable[[], InferenceBackend], ...] = (
        lambda: NumpyMlpInference(model, num_slots),
        lambda: Bfloat16Inference(model, num_slots),
    )
    if graph is not None:
        makers += (lambda: OnnxRuntimeInference(model, environment, num_slots, 1, graph),)
    for make in makers:
        try:
            backends.append(make())
        except UnsuitableModelError:
            continue  # a network of another kind
    return backends


def _compare(backends: list[InferenceBackend], inputs: list[StepInputs]) -> dict[str, float]:
    """Returns the largest difference to the first backend over steps in which state is carried."""
    differences = dict.fromkeys((backend.name for backend in backends), 0.0)
    for step in inputs:
        wanted, *others = [backend.infer(step) for backend in backends]
        for backend, got in zip(backends[1:], others, strict=True):
            difference = compute_difference(wanted, got)
            differences[backend.name] = max(differences[backend.name], difference)
    for backend in backends:
        backend.reset()
    return differences


def _read_weights(model: AgentModel) -> dict[str, Array]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def _measure_window(call: Callable[[], object], window_s: float) -> float:
    """Returns CPU microseconds per call over a window of CPU time, the median of its calls."""
    times: list[float] = []
    start_s = time.thread_time()
    while not times or time.thread_time() - start_s < window_s:
        before_s = time.thread_time()
        call()
        times.append(time.thread_time() - before_s)
    return float(1e6 * np.median(times))
