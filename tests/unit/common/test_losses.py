"""The losses: signs, masks, reductions, ends of episodes.

"Planted" in a docstring names a fault that was put into the code to see the test fail.
[n] numbers pitfalls that other implementations fell into.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from impala_common.config.sections import LossConfig
from impala_common.numerics import vtrace
from impala_common.numerics.distributions import make_policies
from impala_common.numerics.losses import LossOutputs, compute_losses
from impala_common.numerics.reward_preprocessing import preprocess_rewards
from impala_common.spec.action_spec import ActionPart, ActionSpec

torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other

T, B, A = 12, 4, 3
ACTION = ActionSpec.discrete(A)
CONFIG = LossConfig(discount=0.9)


def make_inputs(seed: int = 1) -> dict[str, Tensor]:
    """A batch without padding; target policy and values are leaves with gradients."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "target_policy_logits": torch.randn(T, B, A, generator=generator).requires_grad_(),
        "behaviour_policy_logits": torch.randn(T, B, A, generator=generator),
        "actions": torch.randint(0, A, (T, B), generator=generator),
        "rewards": torch.randn(T, B, generator=generator),
        "terminated": torch.rand(T, B, generator=generator) < 0.1,
        "is_padding": torch.zeros(T, B, dtype=torch.bool),
        "values": torch.randn(T, B, generator=generator).requires_grad_(),
        "bootstrap_value": torch.randn(B, generator=generator),
    }


def run(inputs: dict[str, Tensor], config: LossConfig = CONFIG) -> LossOutputs:
    return compute_losses(**inputs, action=ACTION, config=config)


def compute_gradients(
    inputs: dict[str, Tensor], config: LossConfig = CONFIG
) -> tuple[LossOutputs, Tensor, Tensor]:
    outputs = run(inputs, config)
    logits_grad, values_grad = torch.autograd.grad(
        outputs.total_loss, (inputs["target_policy_logits"], inputs["values"])
    )
    return outputs, logits_grad, values_grad


def test_losses_match_formulas_row_by_row() -> None:
    """Planted: ratios inverted (mu/pi); factor 0.5 left out; +entropy instead of -entropy."""
    inputs = make_inputs()

    outputs, logits_grad, values_grad = compute_gradients(inputs)

    pi = torch.distributions.Categorical(logits=inputs["target_policy_logits"])
    mu = torch.distributions.Categorical(logits=inputs["behaviour_policy_logits"])
    log_rhos = (pi.log_prob(inputs["actions"]) - mu.log_prob(inputs["actions"])).detach()
    returns = vtrace.from_importance_weights(
        log_rhos,
        0.9 * (~inputs["terminated"]).float(),
        inputs["rewards"],
        inputs["values"].detach(),
        inputs["bootstrap_value"],
    )
    pg_loss = -sum(
        returns.pg_advantages[t, b] * pi.log_prob(inputs["actions"])[t, b]
        for t in range(T)
        for b in range(B)
    )
    baseline_loss = 0.5 * 0.5 * ((returns.vs - inputs["values"]) ** 2).sum()
    entropy_loss = -0.01 * pi.entropy().sum()
    total = pg_loss + baseline_loss + entropy_loss
    expected_grads = torch.autograd.grad(total, (inputs["target_policy_logits"], inputs["values"]))
    torch.testing.assert_close(outputs.pg_loss, pg_loss.detach())
    torch.testing.assert_close(outputs.baseline_loss, baseline_loss.detach())
    torch.testing.assert_close(outputs.entropy_loss, entropy_loss.detach())
    torch.testing.assert_close(outputs.total_loss, total)
    torch.testing.assert_close(logits_grad, expected_grads[0])
    torch.testing.assert_close(values_grad, expected_grads[1])


def test_statistics_match_definitions() -> None:
    """Planted: KL(pi || mu) instead of KL(mu || pi); variance replaced by the second moment."""
    inputs = make_inputs(2)

    outputs = run(inputs)

    pi = torch.distributions.Categorical(logits=inputs["target_policy_logits"].detach())
    mu = torch.distributions.Categorical(logits=inputs["behaviour_policy_logits"])
    rhos = (pi.log_prob(inputs["actions"]) - mu.log_prob(inputs["actions"])).exp()
    values = inputs["values"].detach()
    returns = vtrace.from_importance_weights(
        rhos.log(),
        0.9 * (~inputs["terminated"]).float(),
        inputs["rewards"],
        values,
        inputs["bootstrap_value"],
    )
    explained = 1 - (returns.vs - values).var() / returns.vs.var()
    torch.testing.assert_close(outputs.mean_rho, rhos.mean())
    torch.testing.assert_close(outputs.fraction_clipped, (rhos > 1).float().mean())
    torch.testing.assert_close(outputs.kl, torch.distributions.kl_divergence(mu, pi).mean())
    torch.testing.assert_close(outputs.entropy, pi.entropy().mean())
    torch.testing.assert_close(outputs.mean_value, values.mean())
    torch.testing.assert_close(outputs.mean_advantage_abs, returns.pg_advantages.abs().mean())
    torch.testing.assert_close(outputs.explained_variance, explained)
    assert not any(statistic.requires_grad for statistic in outputs[1:])


def test_policy_gradient_after_update_is_nonzero_and_ratios_leave_one() -> None:
    """[5] Planted: behaviour log-probabilities computed from the target's logits."""
    inputs = make_inputs(3)
    inputs["behaviour_policy_logits"] = inputs["target_policy_logits"].detach().clone()
    config = dataclasses.replace(CONFIG, entropy_cost=0.0, baseline_cost=0.0)

    before, logits_grad, values_grad = compute_gradients(inputs, config)
    inputs["target_policy_logits"] = (
        (inputs["target_policy_logits"] - 0.1 * logits_grad).detach().requires_grad_()
    )
    after = run(inputs, config)

    torch.testing.assert_close(before.mean_rho, torch.tensor(1.0))
    assert logits_grad.abs().max() > 0.01
    assert values_grad.abs().max() == 0.0
    assert (after.mean_rho - 1.0).abs() > 1e-3
    assert after.kl > 1e-4


def test_policy_gradient_good_action_becomes_likelier() -> None:
    """Planted: the sign of the policy loss."""
    inputs = make_inputs(4)
    inputs["rewards"] = (inputs["actions"] == 1).float() * 5.0
    logits = torch.zeros(A, requires_grad=True)
    for _ in range(20):
        inputs["target_policy_logits"] = logits.expand(T, B, A)
        inputs["behaviour_policy_logits"] = torch.zeros(T, B, A)
        inputs["values"] = torch.zeros(T, B)
        (grad,) = torch.autograd.grad(run(inputs).total_loss, logits)
        logits = (logits - 0.005 * grad).detach().requires_grad_()

    assert logits.softmax(0)[1] > 0.4


def test_entropy_cost_larger_raises_entropy() -> None:
    """[8] Planted: the sign of the entropy loss."""
    entropies = []
    for entropy_cost in (0.0, 1.0):
        config = dataclasses.replace(CONFIG, entropy_cost=entropy_cost)
        logits = torch.tensor([2.0, 0.0, -1.0], requires_grad=True)
        inputs = make_inputs(5)
        inputs["rewards"] = torch.zeros(T, B)
        inputs["values"], inputs["bootstrap_value"] = torch.zeros(T, B), torch.zeros(B)
        for _ in range(30):
            inputs["target_policy_logits"] = logits.expand(T, B, A)
            outputs = run(inputs, config)
            (grad,) = torch.autograd.grad(outputs.total_loss, logits)
            logits = (logits - 0.02 * grad).detach().requires_grad_()
        entropies.append(outputs.entropy.item())

    assert entropies[1] > entropies[0] + 0.1
    assert entropies[1] > 0.95 * math.log(A)


def test_reduction_mean_is_sum_over_counted_rows() -> None:
    """[6] Planted: the mean taken over T*B although rows are padding."""
    inputs = make_inputs(6)
    inputs["is_padding"][3:5, :2] = True

    summed, sum_grad, _ = compute_gradients(inputs)
    averaged, mean_grad, _ = compute_gradients(
        inputs, dataclasses.replace(CONFIG, loss_reduction="mean")
    )

    num_rows = T * B - 4
    for index in range(4):
        torch.testing.assert_close(averaged[index] * num_rows, summed[index])
    torch.testing.assert_close(mean_grad * num_rows, sum_grad)
    for index in range(4, len(summed)):
        torch.testing.assert_close(averaged[index], summed[index])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_losses_all_padding_are_zero_and_finite(reduction: str) -> None:
    """Planted: the guard against a count of 0 removed."""
    inputs = make_inputs(7)
    inputs["is_padding"][:] = True

    config = dataclasses.replace(CONFIG, loss_reduction=reduction)  # type: ignore[arg-type]
    outputs, logits_grad, values_grad = compute_gradients(inputs, config)

    assert all(scalar == 0.0 for scalar in outputs)
    assert logits_grad.abs().max() == 0.0
    assert values_grad.abs().max() == 0.0


@pytest.mark.parametrize("garbage", [1e6, -3e38, math.inf, math.nan])
def test_padding_garbage_changes_nothing(garbage: float) -> None:
    """[3] Planted, one at a time: mask left out of rhos, entropy, statistics and rewards."""
    clean = make_inputs(8)
    clean["is_padding"][2, 0] = clean["is_padding"][7, :3] = clean["is_padding"][T - 1, 3] = True
    dirty = {name: tensor.detach().clone() for name, tensor in clean.items()}
    mask = clean["is_padding"]
    dirty["rewards"][mask] = garbage
    dirty["behaviour_policy_logits"][mask] = torch.tensor([garbage, -garbage, 1.0])
    dirty["actions"][mask] = (dirty["actions"][mask] + 1) % A
    dirty["terminated"][mask] = ~dirty["terminated"][mask]
    dirty["target_policy_logits"].requires_grad_()
    dirty["values"].requires_grad_()

    expected, *expected_grads = compute_gradients(clean)
    actual, *actual_grads = compute_gradients(dirty)

    for name, want, got in zip(LossOutputs._fields, expected, actual, strict=True):
        assert torch.equal(want, got), name
    for want, got in zip(expected_grads, actual_grads, strict=True):
        assert torch.equal(want, got)
        assert (got[mask] == 0.0).all()


def test_padding_rows_are_left_out_of_means() -> None:
    """Two batches of equal counted rows, one with a column of padding more."""
    inputs = make_inputs(9)
    wide = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    wide["is_padding"][:, 3] = True
    narrow = {name: t[:3] if t.dim() == 1 else t[:, :3] for name, t in inputs.items()}

    outputs = run(wide)

    for want, got in zip(run(narrow), outputs, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("is_terminal", "fixed_point"), [(False, 10.0), (True, 2.6288)])
def test_value_one_state_episodes_of_five_reaches_fixed_point(
    is_terminal: bool, fixed_point: float
) -> None:
    """[2] Reward 1, gamma .9, an end every 5 steps: truncation bootstraps, termination does not.

    So the value is 1 / (1 - gamma), or the mean of the returns from 1 to 5 steps before the end.

    Planted: discount 0 at truncations too; padding rows not masked (fixed point off).
    """
    num_rows = 18  # three times: five decisions and a padding row
    is_padding = (torch.arange(num_rows) % 6 == 5).unsqueeze(1)
    terminated = (torch.arange(num_rows) % 6 == 4).unsqueeze(1) & is_terminal
    inputs = {
        "target_policy_logits": torch.zeros(num_rows, 1, A),
        "behaviour_policy_logits": torch.zeros(num_rows, 1, A),
        "actions": torch.zeros(num_rows, 1, dtype=torch.int64),
        "rewards": (~is_padding).float(),
        "terminated": terminated,
        "is_padding": is_padding,
    }
    config = dataclasses.replace(CONFIG, loss_reduction="mean", baseline_cost=1.0)

    value = torch.zeros((), requires_grad=True)
    for _ in range(150):
        outputs = compute_losses(
            **inputs,
            action=ACTION,
            values=value.expand(num_rows, 1),
            bootstrap_value=value.detach().expand(1),
            config=config,
        )
        (grad,) = torch.autograd.grad(outputs.total_loss, value)
        value = (value - 0.5 * grad).detach().requires_grad_()

    assert value.item() == pytest.approx(fixed_point, abs=0.001)


def test_rewards_are_clipped_before_bootstrap_is_added() -> None:
    """[9] A reward of 100 counts as 1, the bootstrap of 50 counts in full."""
    config = LossConfig(discount=0.9, reward_clipping="clip")
    inputs = {name: tensor[:1] for name, tensor in make_inputs(10).items()}
    inputs["behaviour_policy_logits"] = inputs["target_policy_logits"].detach()
    inputs["rewards"] = preprocess_rewards(torch.full((1, B), 100.0), config)
    inputs["terminated"] = torch.zeros(1, B, dtype=torch.bool)
    inputs["values"], inputs["bootstrap_value"] = torch.zeros(1, B), torch.full((B,), 50.0)

    outputs = run(inputs, config)

    torch.testing.assert_close(outputs.mean_advantage_abs, torch.tensor(1.0 + 0.9 * 50.0))


def test_preprocess_rewards_scales_first_and_keeps_its_input() -> None:
    rewards = torch.tensor([-30.0, -0.5, 0.0, 3.0])

    def preprocess(**changes: object) -> list[float]:
        return preprocess_rewards(rewards, LossConfig(**changes)).tolist()  # type: ignore[arg-type]

    assert preprocess() == [-30.0, -0.5, 0.0, 3.0]
    assert preprocess(reward_scale=0.1) == pytest.approx([-3.0, -0.05, 0.0, 0.3])
    assert preprocess(reward_clipping="clip", reward_scale=0.1) == pytest.approx(
        [-1.0, -0.05, 0.0, 0.3]
    )
    assert preprocess(reward_clipping="sign") == [-1.0, -1.0, 0.0, 1.0]
    assert rewards.tolist() == [-30.0, -0.5, 0.0, 3.0]


def test_losses_integer_masks_and_wrong_shapes_are_rejected() -> None:
    inputs = make_inputs(11)

    with pytest.raises(TypeError, match="bool"):
        run(inputs | {"is_padding": inputs["is_padding"].to(torch.uint8)})
    with pytest.raises(ValueError, match="bootstrap_value: expected"):
        run(inputs | {"bootstrap_value": torch.zeros(B, 1)})
    with pytest.raises(ValueError, match="values: expected"):
        run(inputs | {"values": torch.zeros(T + 1, B)})


MIXED = ActionSpec(
    (
        ActionPart("action/a", "categorical", (2,), "int64", (3, 2), (0, 0)),
        ActionPart("action/b", "bernoulli", (2,), "int8"),
        ActionPart("action/c", "gaussian", (2,), "float32", lows=(-1.0,) * 2, highs=(1.0,) * 2),
    )
)


def make_mixed_inputs(seed: int) -> dict[str, Tensor]:
    """The batch of `make_inputs`, with an action of several parts."""
    generator = torch.Generator().manual_seed(seed)
    target, behaviour = torch.randn(2, T, B, MIXED.num_logits, generator=generator).mul(0.3)
    actions = make_policies(MIXED, behaviour).sample(generator)
    return make_inputs(seed) | {
        "target_policy_logits": target.requires_grad_(),
        "behaviour_policy_logits": behaviour,
        "actions": actions,
    }


def test_losses_of_composed_action_use_one_joint_ratio() -> None:
    """[12] Planted: log-probabilities averaged over the parts; the ratio of the first part only;
    the mean of the parts' ratios.
    """
    inputs = make_mixed_inputs(12)

    outputs = compute_losses(**inputs, action=MIXED, config=CONFIG)
    (grad,) = torch.autograd.grad(outputs.total_loss, inputs["target_policy_logits"])

    def log_prob(logits: Tensor) -> Tensor:
        """Written out part by part with torch's own distributions."""
        actions, normal = inputs["actions"], torch.distributions.Normal
        first = torch.distributions.Categorical(logits=logits[..., :3]).log_prob(actions[..., 0])
        second = torch.distributions.Categorical(logits=logits[..., 3:5]).log_prob(actions[..., 1])
        flags = torch.distributions.Bernoulli(logits=logits[..., 5:7]).log_prob(actions[..., 2:4])
        numbers = normal(logits[..., 7:9], logits[..., 9:11].exp()).log_prob(actions[..., 4:6])
        return first + second + flags.sum(-1) + numbers.sum(-1)

    log_pi = log_prob(inputs["target_policy_logits"])
    log_rhos = (log_pi - log_prob(inputs["behaviour_policy_logits"])).detach()
    returns = vtrace.from_importance_weights(
        log_rhos,
        0.9 * (~inputs["terminated"]).float(),
        inputs["rewards"],
        inputs["values"].detach(),
        inputs["bootstrap_value"],
    )
    pg_loss = -(returns.pg_advantages * log_pi).sum()
    torch.testing.assert_close(outputs.mean_rho, log_rhos.exp().mean())
    torch.testing.assert_close(outputs.pg_loss, pg_loss.detach())
    (pg_grad,) = torch.autograd.grad(pg_loss, inputs["target_policy_logits"])
    entropies = -make_policies(MIXED, inputs["target_policy_logits"]).negative_entropies()
    (entropy_grad,) = torch.autograd.grad(entropies.sum(), inputs["target_policy_logits"])
    torch.testing.assert_close(grad, pg_grad - CONFIG.entropy_cost * entropy_grad)


def test_losses_of_composed_action_ignore_what_padding_rows_hold() -> None:
    inputs = make_mixed_inputs(13)
    inputs["is_padding"] = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.3
    padding = inputs["is_padding"].unsqueeze(-1)
    extreme = torch.tensor([0.0, 0.0, 1.0, 0.0, 1e6, -1e6])
    other = inputs | {
        "actions": torch.where(padding, extreme, inputs["actions"]),
        "behaviour_policy_logits": inputs["behaviour_policy_logits"].masked_fill(padding, -20.0),
    }

    before = compute_losses(**inputs, action=MIXED, config=CONFIG)
    after = compute_losses(**other, action=MIXED, config=CONFIG)

    for name, value in before._asdict().items():
        torch.testing.assert_close(getattr(after, name), value, msg=name)
