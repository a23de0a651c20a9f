"""The categorical distribution against closed forms and frequencies."""

from __future__ import annotations

import math

import pytest
import torch

from impala_common.distributions import (
    categorical_entropy,
    categorical_kl,
    categorical_log_probs,
    mode_categorical,
    sample_categorical,
)


def test_log_probs_known_policy_match_by_leading_shape() -> None:
    probs = torch.tensor([0.2, 0.5, 0.3])
    logits = (probs.log() + 7.0).expand(4, 2, 3)
    actions = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 2]])

    log_probs = categorical_log_probs(logits, actions)

    torch.testing.assert_close(log_probs.exp(), probs[actions])


def test_entropy_uniform_is_log_a_and_certain_is_zero() -> None:
    logits = torch.stack((torch.zeros(5), torch.tensor([200.0, 0.0, 0.0, 0.0, 0.0])))

    entropy = categorical_entropy(logits)

    torch.testing.assert_close(entropy, torch.tensor([math.log(5.0), 0.0]))


def test_kl_matches_definition_and_is_zero_for_equals() -> None:
    """Planted: the two arguments swapped."""
    first, second = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])

    kl = categorical_kl(first.log(), second.log())

    expected = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    torch.testing.assert_close(kl, torch.tensor(expected))
    assert categorical_kl(first.log() + 3.0, first.log()).abs() < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_sample_frequencies_match_probabilities(temperature: float) -> None:
    """Planted: noise added instead of subtracted; the draw made from -logits."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0]) * temperature
    num_draws = 100_000

    actions = sample_categorical(logits.expand(num_draws, 4), generator)

    frequencies = torch.bincount(actions, minlength=4) / num_draws
    torch.testing.assert_close(frequencies, logits.softmax(0), rtol=0, atol=0.006)


def test_sample_same_generator_seed_repeats_and_leaves_logits_alone() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    before = logits.clone()

    draws = [sample_categorical(logits, torch.Generator().manual_seed(3)) for _ in range(2)]

    assert torch.equal(draws[0], draws[1])
    assert draws[0].dtype == torch.int64
    assert torch.equal(logits, before)


def test_sample_with_near_certain_action_takes_it() -> None:
    logits = torch.tensor([[0.0, 1e4, 0.0]]).expand(1000, 3)

    actions = sample_categorical(logits, torch.Generator().manual_seed(4))

    assert (actions == 1).all()
    assert (mode_categorical(logits) == 1).all()
