"""bfloat16 in the encoder: limits of its rounding, and when it is chosen."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from running_server import make_config

from impala_common.config import ModelConfig
from impala_common.errors import ConfigError
from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.models.inputs import prepare_image, require_image_layout
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.numerics import vtrace
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec
from impala_server.learner import precision
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import export_state, make_optimizer
from impala_server.learner.parts import take_whole
from impala_server.learner.update import Updater

torch.set_num_threads(1)

T, B, A = 7, 4, 6
SIDE = 44
IMAGES = EnvironmentSpec(
    (TensorSpec("observation", (4, SIDE, SIDE), "uint8"),), ActionSpec.discrete(A), frame_stack=4
)
VECTORS = EnvironmentSpec((TensorSpec("observation", (3,), "float32"),), ActionSpec.discrete(A))


def make_network(
    name: str = "nature_cnn",
    environment: EnvironmentSpec = IMAGES,
    recurrence: str = "none",
    seed: int = 1,
) -> tuple[ModelSpec, AgentModel]:
    config = ModelConfig(model=name, feature_dim=64, recurrence=recurrence)  # type: ignore[arg-type]
    spec = resolve_model_spec(config, environment)
    return spec, make_model(spec, environment, seed)


def make_batch(model: AgentModel) -> Batch:
    """Behaviour logits are those of the model a little earlier, so that ratios are off 1."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(
        0, 256, (T + 1, B, 4, SIDE, SIDE), dtype=torch.uint8, generator=generator
    )
    is_first = torch.zeros(T + 1, B, dtype=torch.bool)
    inputs = ModelInputs(
        {"observation": pixels}, is_first, torch.zeros(T + 1, B, dtype=torch.int64),
        torch.zeros(T + 1, B),
    )  # fmt: skip
    with torch.no_grad():
        logits = model(inputs, model.initial_state(B)).policy_logits[:-1]
    return Batch(
        inputs,
        model.initial_state(B),
        torch.randint(0, A, (T, B), generator=generator),
        logits + 0.3 * torch.randn(logits.shape, generator=generator),
        torch.randn(T, B, generator=generator),
        torch.rand(T, B, generator=generator) < 0.1,
        torch.zeros(T, B, dtype=torch.bool),
        np.zeros(B, np.int64),
        T * B,
    )


def make_updater(model: AgentModel, dtype: torch.dtype) -> Updater:
    config = make_config()
    return Updater(config, model, make_optimizer(config.optimizer, model), IMAGES.action, dtype)


def compute_update(
    model: AgentModel, batch: Batch, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> tuple[vtrace.VTraceReturns, torch.Tensor, torch.Tensor]:
    """Returns V-trace's returns, the log ratios it was given, and the whole gradient."""
    seen: list[tuple[vtrace.VTraceReturns, torch.Tensor]] = []

    def record(**arguments: Any) -> vtrace.VTraceReturns:
        assert arguments["log_rhos"].dtype == arguments["values"].dtype == torch.float32
        seen.append((compute(**arguments), arguments["log_rhos"]))
        return seen[0][0]

    compute = vtrace.from_importance_weights
    with monkeypatch.context() as patch:
        patch.setattr(vtrace, "from_importance_weights", record)
        losses = make_updater(model, dtype).compute_losses(take_whole(batch))
    gradients = torch.autograd.grad(losses.total_loss, list(model.parameters()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    ((returns, log_rhos),) = seen
    return returns, log_rhos, torch.cat([gradient.flatten() for gradient in gradients])


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bfloat16_targets_and_gradient_stay_within_the_bounds_of_adr_0025(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log ratios 0.02, targets and advantages 1 %, gradient 15 % and its direction .99.

    The policy is made as pronounced as a trained one. Seen: .0078, .6 %, .8 %, 10.4 %, .9946.
    Seen to fail with heads inside of autocast (their outputs are bfloat16 then).
    """
    _, model = make_network(seed=seed)
    with torch.no_grad():
        model.policy_head.weight.mul_(100.0)  # type: ignore[operator,union-attr]
    batch = make_batch(model)

    exact, log_rhos, gradient = compute_update(model, batch, torch.float32, monkeypatch)
    rounded, log_rhos_rounded, gradient_rounded = compute_update(
        model, batch, torch.bfloat16, monkeypatch
    )

    torch.testing.assert_close(log_rhos_rounded, log_rhos, atol=0.02, rtol=0.0)
    assert relative_error(rounded.vs, exact.vs) < 0.01
    assert relative_error(rounded.pg_advantages, exact.pg_advantages) < 0.01
    assert 0.0 < relative_error(gradient_rounded, gradient) < 0.15
    assert torch.cosine_similarity(gradient, gradient_rounded, dim=0) > 0.99


@pytest.mark.parametrize("recurrence", ["none", "lstm", "gru"])
def test_bfloat16_update_leaves_weights_and_optimizer_in_float32(recurrence: str) -> None:
    """What checkpoints hold and actors get is float32, with memory behind the encoder as well."""
    _, model = make_network(recurrence=recurrence)
    updater = make_updater(model, torch.bfloat16)
    batch = make_batch(model)
    before = copy.deepcopy(model.state_dict())

    result = updater.apply(batch, 1e-3)

    assert result.is_applied
    assert result.values.dtype == torch.float32
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    state = export_state(updater._optimizer, model)
    assert state
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


def test_pixels_in_bfloat16_are_those_of_float32_rounded_once() -> None:
    """Each of the 256 values. Seen to fail with the scale rounded to bfloat16 first."""
    leaf = TensorSpec("observation", (1, 16, 16), "uint8")
    environment = EnvironmentSpec((leaf,), ActionSpec.discrete(A))
    layout = require_image_layout(environment, "nature_cnn", 1)
    observations = {"observation": torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16)}

    exact = prepare_image(observations, layout, 1 / 255, torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = prepare_image(observations, layout, 1 / 255, torch.channels_last)

    assert exact.dtype == torch.float32
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, exact.to(torch.bfloat16))


@pytest.mark.parametrize(("gain", "expected"), [(1.6, torch.bfloat16), (1.0, torch.float32)])
def test_auto_takes_bfloat16_only_where_it_was_measured_to_pay(
    gain: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure_gain", lambda encoder, environment: gain)
    spec, model = make_network()

    job = make_config(job={"precision": "auto"}).job
    assert precision.choose_encoder_dtype(job, spec, model, IMAGES) == expected


def test_auto_stays_in_float32_with_lockstep_and_for_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen to fail without the look at lockstep: same seed, other bits."""
    monkeypatch.setattr(precision, "measure_gain", lambda encoder, environment: 9.0)
    spec, model = make_network()
    lockstep = make_config(
        job={"lockstep": True, "precision": "auto"},
        environment={"envs_per_actor": 8},
        rollout={"batch_size": 8},
    )

    assert precision.choose_encoder_dtype(lockstep.job, spec, model, IMAGES) == torch.float32
    job = make_config(job={"precision": "auto"}).job
    for recurrence in ("none", "lstm"):
        spec, model = make_network("mlp", VECTORS, recurrence)
        assert precision.choose_encoder_dtype(job, spec, model, VECTORS) == torch.float32


def test_bfloat16_asked_for_without_an_encoder_is_refused() -> None:
    spec, model = make_network("mlp", VECTORS)
    job = make_config(job={"precision": "bfloat16"}).job

    with pytest.raises(ConfigError, match="has no encoder"):
        precision.choose_encoder_dtype(job, spec, model, VECTORS)


def test_measure_leaves_the_network_as_it_was() -> None:
    _, model = make_network()
    encoder = precision._find_encoder(model)
    assert encoder is not None
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()

    gain = precision.measure_gain(encoder, IMAGES)

    assert gain >= 0.0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
