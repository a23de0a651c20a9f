"""Updates as the seed's class makes them: what is in a batch, the losses and the optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from seed_agents import STEPS, Trained, make_agent, make_batch, update_once, weights_of

from impala_common.run import metrics

pytestmark = pytest.mark.timeout(180)


def test_seed_row_num_steps_and_batch_size_make_an_update(trained: Trained) -> None:
    """Seen failing with batch_size and num_steps exchanged."""
    counters = trained.checkpoints[-1].state["counters"]

    assert counters["trained_unrolls"] == 4 * counters["policy_version"]
    # Every row but padding is a step: an episode of at least 8 steps has one padding row.
    steps_per_unroll = counters["trained_steps"] / counters["trained_unrolls"]
    assert 10 * 8 / 9 <= steps_per_unroll <= 10


def test_seed_row_lr_and_eps_are_rmsprops_with_a_linear_schedule(trained: Trained) -> None:
    optimizer = trained.agent._frozen().state.optimizer
    rates = [line[metrics.LEARNING_RATE] for line in trained.lines if line[metrics.UPDATES] > 0]

    assert type(optimizer) is torch.optim.RMSprop
    assert optimizer.param_groups[0]["eps"] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(4e-4 * 50 / STEPS, abs=4e-4 * 50 / STEPS)
    assert update_once(lr=0.02)["learning_rate"] == 0.02


def test_seed_row_use_lstm_carries_state_into_the_update() -> None:
    """Seen failing with init_actor_states ignored."""
    agents = [make_agent(use_lstm=True) for _ in range(2)]
    batch = make_batch(agents[0])
    batch = {name: value for name, value in batch.items() if "state" not in name}
    states = [tuple(torch.full((1, 5, 12), fill) for _ in range(2)) for fill in (0.0, 1.0)]

    fresh, carried = (
        agent.update(batch, state)["total_loss"]
        for agent, state in zip(agents, states, strict=True)
    )

    assert len(agents[0].network.agent_state_specs()) == 2
    assert fresh == make_agent(use_lstm=True).update(batch)["total_loss"]
    assert fresh != carried


def test_seed_row_ent_coef_and_baseline_coef_weigh_the_losses() -> None:
    """Seen failing with the two exchanged."""
    once = update_once(ent_coef=0.1, baseline_coef=0.5)
    more = update_once(ent_coef=0.3, baseline_coef=1.0)

    assert more["entropy_loss"] == pytest.approx(3 * once["entropy_loss"], rel=1e-4)
    assert more["baseline_loss"] == pytest.approx(2 * once["baseline_loss"], rel=1e-4)
    parts = once["pg_loss"] + once["baseline_loss"] + once["entropy_loss"]
    assert once["total_loss"] == pytest.approx(parts, rel=1e-5)


def test_seed_row_max_grad_norm_bounds_the_step() -> None:
    """RMSProp's first step is at most the gradient where eps is 1."""
    steps = []
    for max_grad_norm in (1e-3, 1e3):
        agent = make_agent(max_grad_norm=max_grad_norm, eps=1.0, lr=1.0)
        before = weights_of(agent)
        agent.update(make_batch(agent))
        after = weights_of(agent)
        steps.append(math.sqrt(sum(float(((after[n] - before[n]) ** 2).sum()) for n in before)))

    assert 0 < steps[0] <= 1.01e-3
    assert steps[1] > 100 * steps[0]


def test_seed_row_discount_is_that_of_value_targets() -> None:
    assert update_once(discount=0.0)["baseline_loss"] != update_once(discount=0.99)["baseline_loss"]


@pytest.mark.parametrize(
    "loss",
    [
        {"clip_rho_threshold": 0.2, "clip_c_threshold": 0.2},
        {"clip_pg_rho_threshold": 0.2},
        {"clip_c_threshold": 0.1},
        {"vtrace_lambda": 0.1},
    ],
    ids=lambda loss: next(iter(loss)),
)
def test_seed_row_vtrace_clips_and_lambda_are_settings(loss: dict[str, float]) -> None:
    usual = update_once()["pg_loss"]

    assert update_once(config={"loss": loss})["pg_loss"] != usual
