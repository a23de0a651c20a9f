"""Chooses the precision that the learner's encoder computes in, by measuring.

Called once, when the learner is built. Whether bfloat16 is faster depends on the processor (AMX or
avx512_bf16 on a CPU, tensor cores on a GPU), on the build of torch and on the shapes of the
network. So a forward and a backward pass of the encoder itself are measured.
`impala_common.models.trunk` says which parts always stay in float32.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor, nn

from impala_common.config import JobConfig
from impala_common.errors import ConfigError
from impala_common.models.contract import AgentModel
from impala_common.models.trunk import Encoder, TrunkModel
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

_LOG = logging.getLogger(__name__)

_AUTO_MODELS = ("nature_cnn",)
"""Networks whose rounding errors tests bound; the fifteen convolutions of the ResNet add up
more."""

_NUM_ROWS = 64
_NUM_RUNS = 3
_MIN_GAIN = 1.15
"""bfloat16 must be this many times as fast to be chosen."""


def choose_encoder_dtype(
    config: JobConfig, spec: ModelSpec, model: AgentModel, environment: EnvironmentSpec
) -> torch.dtype:
    """Returns float32 or bfloat16, for the encoder of `model` on its device.

    Args:
      config: `precision` and `lockstep` are used.
      spec: specification of `model`.
      model: the network; unchanged afterwards.
      environment: specification of its inputs.

    Raises:
      ConfigError: the setting is bfloat16 and the network has no encoder.
    """
    encoder = _find_encoder(model)
    if config.precision == "bfloat16" and encoder is None:
        raise ConfigError(
            "precision",
            config.precision,
            "auto or float32 for this network",
            f"{spec.name} has no encoder: all of it is computed in float32",
        )
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    # Lockstep promises the same bits every time; a measurement may differ between runs.
    if encoder is None or config.lockstep or spec.name not in _AUTO_MODELS:
        return torch.float32
    gain = measure_gain(encoder, environment)
    chosen = torch.bfloat16 if gain >= _MIN_GAIN else torch.float32
    _LOG.info("encoder computes in %s: bfloat16 is %.2f times as fast here", chosen, gain)
    return chosen


def measure_gain(encoder: Encoder, environment: EnvironmentSpec) -> float:
    """Returns the speed-up of the encoder in bfloat16; 0 if it cannot run in bfloat16.

    Takes the best of a few alternating runs, so that other load affects both equally.
    """
    device = next(encoder.parameters()).device
    observations = {
        leaf.name: torch.zeros(
            (1, _NUM_ROWS, *leaf.shape), dtype=getattr(torch, leaf.dtype), device=device
        )
        for leaf in environment.observation_leaves
    }
    best_s = {torch.float32: torch.inf, torch.bfloat16: torch.inf}
    try:
        for run in range(_NUM_RUNS + 1):
            for dtype, known_s in best_s.items():
                run_s = _time_once(encoder, observations, dtype, device)
                best_s[dtype] = min(known_s, run_s if run else torch.inf)  # the first warms up
    except RuntimeError as error:
        _LOG.info("no bfloat16 here: %s", error)
        return 0.0
    return best_s[torch.float32] / max(best_s[torch.bfloat16], 1e-9)


def _time_once(
    encoder: Encoder, observations: dict[str, Tensor], dtype: torch.dtype, device: torch.device
) -> float:
    """Returns the seconds of one forward and backward pass; gradients are thrown away.

    On a CPU these are seconds of CPU time: actors that start may keep the machine busy.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start_s = clock()
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        features = encoder(observations)
    torch.autograd.grad(features.sum(), list(encoder.parameters()))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start_s


def _find_encoder(model: nn.Module) -> Encoder | None:
    trunks = [module for module in model.modules() if isinstance(module, TrunkModel)]
    return trunks[0].encoder if trunks else None
