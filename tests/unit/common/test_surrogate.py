"""The clipped surrogate and normalised advantages against plain float64 loops.

"Planted" in a docstring names a fault that was put into the code to see the test fail.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from impala_common.config import LossConfig, ReuseConfig
from impala_common.numerics.losses import (
    LossOutputs,
    Targets,
    compute_losses,
    compute_losses_towards,
    compute_targets,
    normalise_advantages,
)
from impala_common.spec.action_spec import ActionSpec

T, B, A = 9, 4, 3
ACTION = ActionSpec.discrete(A)
# A discount that float32, the type of discounts, holds exactly.
CONFIG = LossConfig(discount=0.875, vtrace_lambda=0.8, loss_reduction="mean")


def make_inputs(seed: int = 1, is_on_policy: bool = False) -> dict[str, Tensor]:
    """A batch in float64 with padding; policy and values are leaves with gradients."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(T, B, A, generator=generator, dtype=torch.float64)
    other = torch.randn(T, B, A, generator=generator, dtype=torch.float64)
    return {
        "target_policy_logits": logits.clone().requires_grad_(),
        "behaviour_policy_logits": logits if is_on_policy else other,
        "actions": torch.randint(0, A, (T, B), generator=generator),
        "rewards": torch.randn(T, B, generator=generator, dtype=torch.float64),
        "terminated": torch.rand(T, B, generator=generator) < 0.1,
        "is_padding": torch.rand(T, B, generator=generator) < 0.15,
        "values": torch.randn(T, B, generator=generator, dtype=torch.float64).requires_grad_(),
        "bootstrap_value": torch.randn(B, generator=generator, dtype=torch.float64),
    }


def run(
    inputs: dict[str, Tensor], config: LossConfig = CONFIG, **reuse: object
) -> tuple[LossOutputs, list[Tensor]]:
    settings = ReuseConfig(**reuse)  # type: ignore[arg-type]
    outputs = compute_losses(**inputs, action=ACTION, config=config, reuse=settings)
    leaves = (inputs["target_policy_logits"], inputs["values"])
    return outputs, list(torch.autograd.grad(outputs.total_loss, leaves))


def compute_oracle_advantages(inputs: dict[str, Tensor], config: LossConfig) -> list[list[float]]:
    """q_t - V_t, one number at a time, from the end of each column; [B][T]."""
    pi = torch.log_softmax(inputs["target_policy_logits"].detach(), -1)
    mu = torch.log_softmax(inputs["behaviour_policy_logits"], -1)
    all_of_them = []
    for b in range(B):
        values = [*inputs["values"].detach()[:, b].tolist(), float(inputs["bootstrap_value"][b])]
        next_vs, advantages = values[T], [0.0] * T
        for t in reversed(range(T)):
            action = int(inputs["actions"][t, b])
            rho = min(1.0, math.exp(float(pi[t, b, action] - mu[t, b, action])))
            if inputs["is_padding"][t, b]:
                next_vs = values[t]
                continue
            gamma = 0.0 if inputs["terminated"][t, b] else config.discount
            lambda_ = config.vtrace_lambda
            reward = float(inputs["rewards"][t, b])
            mixed = lambda_ * next_vs + (1.0 - lambda_) * values[t + 1]
            advantages[t] = reward + gamma * mixed - values[t]
            delta = rho * (reward + gamma * values[t + 1] - values[t])
            next_vs = values[t] + delta + gamma * lambda_ * rho * (next_vs - values[t + 1])
        all_of_them.append(advantages)
    return all_of_them


def compute_oracle_loss(
    inputs: dict[str, Tensor], clip: float, advantages: list[list[float]]
) -> Tensor:
    """Mean over rows that count of -min(r A, clip(r, 1 - clip, 1 + clip) A), with gradient."""
    pi = torch.log_softmax(inputs["target_policy_logits"], -1)
    mu = torch.log_softmax(inputs["behaviour_policy_logits"], -1)
    terms = []
    for t in range(T):
        for b in range(B):
            if inputs["is_padding"][t, b]:
                continue
            action = int(inputs["actions"][t, b])
            ratio = (pi[t, b, action] - mu[t, b, action]).exp()
            one = ratio * advantages[b][t]
            other = ratio.clamp(1.0 - clip, 1.0 + clip) * advantages[b][t]
            terms.append(-(one if one.item() <= other.item() else other))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("clip", [0.2, 0.5])
def test_surrogate_and_its_gradient_equal_the_loop(clip: float) -> None:
    """Planted: V-trace's ratio left in front of the advantage; maximum for minimum; padding rows
    counted; ratio inverted.
    """
    inputs = make_inputs()
    config = dataclasses.replace(CONFIG, entropy_cost=0.0, baseline_cost=0.0)

    outputs, (logits_grad, _) = run(inputs, config, surrogate_clip=clip)

    wanted = compute_oracle_loss(inputs, clip, compute_oracle_advantages(inputs, config))
    (wanted_grad,) = torch.autograd.grad(wanted, inputs["target_policy_logits"])
    torch.testing.assert_close(outputs.pg_loss, wanted.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits_grad, wanted_grad, rtol=1e-12, atol=1e-12)
    assert logits_grad.abs().max() > 0.01


def test_surrogate_on_policy_has_the_gradient_of_vtrace() -> None:
    """At a ratio of 1 nothing is clipped, and d r = d log pi."""
    inputs = make_inputs(2, is_on_policy=True)

    _, plain = run(inputs)
    _, clipped = run(inputs, surrogate_clip=0.2)

    for one, other in zip(plain, clipped, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_surrogate_with_extreme_ratios_stays_finite() -> None:
    """Planted: the log of the ratio left unbounded, whose gradient is then 0 times infinity."""
    inputs = make_inputs(3)
    extreme = torch.full((T, B, A), -2000.0, dtype=torch.float64)
    inputs["behaviour_policy_logits"] = extreme.scatter(
        -1, (inputs["actions"][..., None] + 1) % A, 0.0
    )

    outputs, gradients = run(inputs, surrogate_clip=0.2)

    assert torch.isfinite(outputs.total_loss)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_normalised_advantages_have_mean_0_and_deviation_1_over_rows_that_count(
    clip: float,
) -> None:
    """Planted: padding rows counted in the mean."""
    inputs = make_inputs(4)
    counted = ~inputs["is_padding"]
    raw = compute_oracle_advantages(inputs, CONFIG)
    flat = torch.tensor([raw[b][t] for t in range(T) for b in range(B) if counted[t, b]]).double()
    normalised = [
        [(x - float(flat.mean())) / float(flat.std(correction=0)) for x in row] for row in raw
    ]

    outputs, _ = run(inputs, surrogate_clip=clip, advantage_normalisation="batch")

    torch.testing.assert_close(outputs.advantage_std, flat.std(correction=0), check_dtype=False)
    if clip:
        wanted = compute_oracle_loss(inputs, clip, normalised)
        torch.testing.assert_close(outputs.pg_loss, wanted.detach(), rtol=1e-6, atol=1e-6)
    else:
        pi = torch.log_softmax(inputs["target_policy_logits"].detach(), -1)
        mu = torch.log_softmax(inputs["behaviour_policy_logits"], -1)
        log_pi = pi.gather(-1, inputs["actions"][..., None])[..., 0]
        log_mu = mu.gather(-1, inputs["actions"][..., None])[..., 0]
        rhos = (log_pi - log_mu).exp().clamp(max=1.0)
        advantages = torch.tensor(normalised, dtype=torch.float64).T
        wanted = -(rhos * advantages * log_pi)[counted].mean()
        torch.testing.assert_close(outputs.pg_loss, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reuse", [{}, {"surrogate_clip": 0.2}])
def test_losses_towards_targets_of_the_same_outputs_are_the_losses(reuse: dict[str, float]) -> None:
    """Rows may be in any order and shape: here each is a column of its own."""
    inputs = make_inputs(5)
    wanted, wanted_gradients = run(inputs, **reuse)
    policy = {
        name: inputs[name]
        for name in ("target_policy_logits", "behaviour_policy_logits", "actions", "is_padding")
    }
    targets = compute_targets(**inputs, action=ACTION, config=CONFIG)
    order = torch.randperm(T * B, generator=torch.Generator().manual_seed(1))

    def shuffle(leaf: Tensor) -> Tensor:
        return leaf.flatten(0, 1)[order].unsqueeze(0)

    found = compute_losses_towards(
        Targets(*map(shuffle, targets)),
        action=ACTION,
        values=shuffle(inputs["values"]),
        config=CONFIG,
        reuse=ReuseConfig(**reuse),  # type: ignore[arg-type]
        **{name: shuffle(leaf) for name, leaf in policy.items()},
    )
    leaves = (inputs["target_policy_logits"], inputs["values"])
    gradients = torch.autograd.grad(found.total_loss, leaves)

    for name, one, other in zip(LossOutputs._fields, found, wanted, strict=True):
        torch.testing.assert_close(one, other, msg=name, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_statistics_of_ratios_match_their_definitions() -> None:
    """Planted: the effective sample size of all rows, padding included."""
    inputs = make_inputs(6)

    outputs, _ = run(inputs)

    counted = ~inputs["is_padding"]
    pi = torch.log_softmax(inputs["target_policy_logits"].detach(), -1)
    mu = torch.log_softmax(inputs["behaviour_policy_logits"], -1)
    rhos = (pi - mu).gather(-1, inputs["actions"][..., None])[..., 0][counted].exp()
    share = rhos.sum() ** 2 / (len(rhos) * (rhos**2).sum())
    torch.testing.assert_close(outputs.effective_sample_share, share)
    torch.testing.assert_close(
        outputs.high_rho_share, (rhos > 1.1).double().mean(), check_dtype=False
    )
    values = inputs["values"].detach()[counted]
    torch.testing.assert_close(outputs.value_scale, values.square().mean().sqrt())
    assert not any(statistic.requires_grad for statistic in outputs[1:])


def test_normalise_advantages_of_padding_alone_is_zero() -> None:
    inputs = make_inputs(7)
    everything = torch.ones(T, B, dtype=torch.bool)
    inputs["is_padding"] = everything
    targets = compute_targets(**inputs, action=ACTION, config=CONFIG)

    assert bool((normalise_advantages(targets, everything).policy_advantages == 0.0).all())
