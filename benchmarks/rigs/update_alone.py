"""The learner's update alone: `Updater.apply` on random batches that are on the device already.

Used by the section `update` and by `make gpu`, each in a process of its own. Nothing is sent,
stored or loaded; convolutions run channels-last, as they always do.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch

from impala_common.config import TrainConfig
from impala_common.config.presets import make_preset
from impala_common.models.contract import ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import EnvironmentSpec, TensorSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import make_optimizer
from impala_server.learner.update import Updater

ATARI = EnvironmentSpec(
    (TensorSpec("observation", (4, 84, 84), "uint8"),), ActionSpec.discrete(6), frame_stack=4
)
CARTPOLE = EnvironmentSpec((TensorSpec("observation", (4,), "float32"),), ActionSpec.discrete(2))
MINATAR = EnvironmentSpec((TensorSpec("observation", (10, 10, 4), "bool"),), ActionSpec.discrete(6))
# Weights stay as they began, so that every update is as expensive as the first.
_LEARNING_RATE = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdateNetwork:
    """A network and a batch for it.

    Attributes:
      preset: whose passes and losses an update has; empty: one pass, the settings' defaults.
    """

    name: str
    model: str
    environment: EnvironmentSpec
    unroll_length: int
    batch_size: int
    has_encoder: bool = True
    preset: str = ""


class UpdateAlone:
    """One network in one precision, compiled or not.

    Attributes:
      first_call_s: seconds of the first update, compilation included.
      cpu_us: CPU microseconds per step of each window.
    """

    def __init__(
        self, network: UpdateNetwork, device: str, dtype: torch.dtype, compiled: str = ""
    ) -> None:
        """Makes the network, a batch, and two updates.

        Args:
          network: and the shape of its batch.
          device: cpu or cuda.
          dtype: of the encoder.
          compiled: "" for eager; a mode of torch.compile ("reduce-overhead" is CUDA graphs), or
            a backend of it that traces and generates no code ("aot_eager").
        """
        config = make_preset(network.preset) if network.preset else TrainConfig()
        model_config = dataclasses.replace(config.model, model=network.model)
        config = dataclasses.replace(config, model=model_config)
        spec = resolve_model_spec(config.model, network.environment)
        model = make_model(spec, network.environment, seed=1).to(device)
        if compiled == "aot_eager":
            model.compile(backend=compiled)
        elif compiled:
            model.compile(mode=compiled)
        self._has_graphs = compiled == "reduce-overhead"
        optimizer = make_optimizer(config.optimizer, model)
        self._updater = Updater(config, model, optimizer, network.environment.action, dtype)
        self._batch = make_batch(network, device)
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

    @property
    def num_steps(self) -> int:
        """Agent steps of an update."""
        return self._batch.num_steps

    def _update(self) -> None:
        if self._has_graphs:
            # The outputs before may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        result = self._updater.apply(self._batch, _LEARNING_RATE)
        if not result.is_applied:
            raise RuntimeError(f"an update was not applied: {result}")
        if self._device == "cuda":
            torch.cuda.synchronize()


def make_batch(network: UpdateNetwork, device: str) -> Batch:
    """Returns a random batch of the network's shape, on `device`."""
    random = np.random.default_rng(1)
    (leaf,) = network.environment.observation_leaves
    rows, columns = network.unroll_length, network.batch_size
    shape = (rows + 1, columns, *leaf.shape)
    if leaf.dtype == "uint8":
        observations = torch.from_numpy(random.integers(0, 256, shape, np.uint8))
    elif leaf.dtype == "bool":
        observations = torch.from_numpy(random.random(shape) < 0.1)
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
