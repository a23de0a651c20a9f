"""Action distributions against torch.distributions, closed forms and frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from action_oracles import compute_choice_entropies, make_oracles
from torch import Tensor
from torch import distributions as oracle

from impala_common.numerics.distributions import CategoricalPolicies, make_policies
from impala_common.policy.action_sampler import choose_actions
from impala_common.spec.action_spec import MASKED_LOGIT, ActionPart, ActionSpec

INFINITY = math.inf
LOG_2 = math.log(2.0)
DISCRETE = ActionSpec.discrete(3)
MULTI = ActionSpec((ActionPart("action", "categorical", (4,), "int64", (2, 2, 3, 2), (0,) * 4),))
BINARY = ActionSpec((ActionPart("action", "bernoulli", (2, 2), "int8"),))
BOX = ActionSpec(
    (ActionPart("action", "gaussian", (2,), "float32", lows=(-1.0,) * 2, highs=(1.0,) * 2),)
)
MIXED = ActionSpec(
    (
        ActionPart("action/a", "gaussian", (), "float32", lows=(-INFINITY,), highs=(2.0,)),
        ActionPart("action/b", "categorical", (2,), "int64", (3, 3), (0, 0)),
        ActionPart("action/c", "gaussian", (2,), "float64", lows=(-1.0,) * 2, highs=(1.0,) * 2),
        ActionPart("action/d", "bernoulli", (3,), "int8"),
    )
)
SPECS = pytest.mark.parametrize(
    "spec", [DISCRETE, MULTI, BINARY, BOX, MIXED], ids=["choice", "multi", "binary", "box", "mixed"]
)


def make_case(spec: ActionSpec, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits with gradient, other logits and actions, 5 x 4 of each."""
    generator = torch.Generator().manual_seed(seed)
    logits, other = torch.randn(2, 5, 4, spec.num_logits, generator=generator).unbind()
    actions = make_policies(spec, other).sample(generator)
    return logits.requires_grad_(), other, actions


@SPECS
def test_policies_match_torch_distributions_in_values_and_gradients(spec: ActionSpec) -> None:
    """Planted: log_std exponentiated twice; log-probabilities averaged over the components;
    KL with the arguments swapped; log_std taken for the log of the variance.
    """
    logits, other, actions = make_case(spec, seed=1)
    flat = actions if actions.ndim == 3 else actions.unsqueeze(-1)

    policies, others = make_policies(spec, logits), make_policies(spec, other)
    actual = (policies.log_probs(actions), policies.negative_entropies(), policies.kl(others))

    expected = [torch.zeros(5, 4) for _ in range(3)]
    pairs = zip(make_oracles(spec, logits), make_oracles(spec, other), strict=True)
    for (mine, place), (its, _place) in pairs:
        expected[0] = expected[0] + mine.log_prob(flat[..., place].float()).sum(-1)
        expected[1] = expected[1] - mine.entropy().sum(-1)
        expected[2] = expected[2] + oracle.kl_divergence(mine, its).sum(-1)
    for got, want in zip(actual, expected, strict=True):
        assert got.shape == (5, 4)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        weights = torch.linspace(-1.0, 1.0, 20).view(5, 4)
        (got_grad,) = torch.autograd.grad((got * weights).sum(), logits, retain_graph=True)
        (want_grad,) = torch.autograd.grad((want * weights).sum(), logits, retain_graph=True)
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-5, atol=1e-5)


@SPECS
def test_entropies_of_choices_match_torch_distributions(spec: ActionSpec) -> None:
    logits, _, _ = make_case(spec, seed=2)

    entropies, largest = make_policies(spec, logits).choice_entropies()

    wanted, most = compute_choice_entropies(spec, logits)
    torch.testing.assert_close(entropies, wanted)
    torch.testing.assert_close(largest, most)


@pytest.mark.parametrize("illegal", [-INFINITY, MASKED_LOGIT])
def test_illegal_choices_do_not_count_for_the_largest_entropy(illegal: float) -> None:
    """Seen to fail with MASKED_LOGIT, which is finite: all choices counted."""
    choices = torch.tensor([[0.0, 0.0, illegal], [illegal, 1.0, illegal], [1.0, 2.0, 3.0]])
    flags = torch.tensor([[0.0, illegal, -illegal, 2.0]])

    entropies, largest = make_policies(DISCRETE, choices).choice_entropies()
    _, largest_of_flags = make_policies(BINARY, flags).choice_entropies()

    torch.testing.assert_close(largest.squeeze(-1), torch.tensor([2.0, 1.0, 3.0]).log())
    torch.testing.assert_close(entropies[:2, 0], torch.tensor([LOG_2, 0.0]))
    torch.testing.assert_close(largest_of_flags, torch.tensor([[1.0, 0.0, 0.0, 1.0]]) * LOG_2)


def sample_with_torch(spec: ActionSpec, logits: Tensor) -> Tensor:
    return make_policies(spec, logits).sample(torch.Generator().manual_seed(2))


def sample_with_numpy(spec: ActionSpec, logits: Tensor) -> Tensor:
    return torch.from_numpy(choose_actions(spec, logits.numpy(), np.random.default_rng(2)))


@pytest.mark.parametrize("sample", [sample_with_torch, sample_with_numpy])
@SPECS
def test_samples_have_the_moments_of_the_distribution(
    spec: ActionSpec, sample: Callable[[ActionSpec, Tensor], Tensor]
) -> None:
    """Planted: noise added to a choice's logits, not subtracted; a flag drawn from -logit;
    log_std added without exponentiating it.
    """
    num_draws = 40_000
    row = torch.randn(spec.num_logits, generator=torch.Generator().manual_seed(3))

    actions = sample(spec, row.expand(num_draws, -1).contiguous())

    assert actions.shape == (num_draws, *spec.tensor.shape)
    assert str(actions.dtype) == f"torch.{spec.tensor.dtype}"
    flat = actions if actions.ndim == 2 else actions.unsqueeze(-1)
    for distribution, place in make_oracles(spec, row):
        if isinstance(distribution, oracle.Categorical):
            for value in range(distribution.logits.shape[-1]):
                frequency = (flat[:, place] == value).float().mean()
                assert frequency == pytest.approx(distribution.probs[..., value].item(), abs=0.012)
            continue
        means, stds = flat[:, place].float().mean(0), flat[:, place].float().std(0)
        torch.testing.assert_close(means, distribution.mean, rtol=0.02, atol=0.05)
        torch.testing.assert_close(stds, distribution.stddev, rtol=0.02, atol=0.02)


@SPECS
def test_mode_is_the_same_in_torch_and_numpy_and_has_the_highest_probability(
    spec: ActionSpec,
) -> None:
    logits, _other, actions = make_case(spec, seed=4)
    logits = logits.detach()
    policies = make_policies(spec, logits)

    mode = policies.mode()

    assert (policies.log_probs(mode) >= policies.log_probs(actions)).all()
    rows = logits.flatten(0, 1).numpy()
    assert torch.equal(torch.from_numpy(choose_actions(spec, rows, None)), mode.flatten(0, 1))


@SPECS
def test_sample_same_seed_repeats_and_leaves_logits_alone(spec: ActionSpec) -> None:
    logits = make_case(spec, seed=5)[0].detach()
    before = logits.clone()

    draws = [make_policies(spec, logits).sample(torch.Generator().manual_seed(6)) for _ in "12"]
    rows = logits.flatten(0, 1).numpy()
    others = [choose_actions(spec, rows, np.random.default_rng(6)) for _ in "12"]

    assert torch.equal(draws[0], draws[1])
    assert np.array_equal(others[0], others[1])
    assert torch.equal(logits, before)


def test_choice_noise_of_zero_raises_no_floating_point_error() -> None:
    """Seen to fail with the logarithm of the noise as it is drawn."""

    class Zeros(np.random.Generator):
        def standard_exponential(self, size: Any = None, dtype: Any = None, **_: Any) -> Any:
            return np.zeros(size, dtype)

    logits = np.array([[0.0, 5.0, 1.0]], np.float32)

    with np.errstate(all="raise"):
        chosen = choose_actions(DISCRETE, logits, Zeros(np.random.PCG64(1)))

    assert chosen.tolist() == [1]


def test_extreme_logits_give_finite_numbers_and_gradients() -> None:
    """Planted: log(sigmoid(x)) in place of logsigmoid(x)."""
    row = torch.tensor([-5.0, 2.0, 0.0, 1e4, 0.0, -1e4, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1e4, -1e4, 0])
    logits = row[: MIXED.num_logits].clone().requires_grad_()
    actions = torch.tensor([1e6, 0.0, 2.0, -1e6, 0.0, 0.0, 1.0, 0.0])

    policies = make_policies(MIXED, logits)
    total = policies.log_probs(actions) + policies.negative_entropies() + policies.kl(policies)
    (grad,) = torch.autograd.grad(total, logits)

    assert torch.isfinite(total)
    assert torch.isfinite(grad).all()


def test_entropy_uniform_is_log_a_and_certain_is_zero() -> None:
    logits = torch.stack((torch.zeros(5), torch.tensor([200.0, 0.0, 0.0, 0.0, 0.0])))

    negative_entropies = CategoricalPolicies(logits).negative_entropies()

    torch.testing.assert_close(negative_entropies, torch.tensor([-math.log(5.0), 0.0]))
