"""The state of optimizers over a change of their settings."""

from __future__ import annotations

import torch
from torch import nn

from impala_common.config import OptimizerConfig
from impala_server.learner.optimizers import export_state, import_state, make_optimizer


def step(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()


def make(momentum: float) -> tuple[torch.optim.Optimizer, nn.Module]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    config = OptimizerConfig(optimizer="rmsprop", rmsprop_momentum=momentum)
    return make_optimizer(config, model), model


def test_state_saved_without_momentum_goes_on_with_it() -> None:
    """Seen to fail: KeyError in the first step of `--resume RUN --rmsprop-momentum 0.9`."""
    saved, model = make(0.0)
    step(saved, model)
    state = export_state(saved, model)

    optimizer, model = make(0.9)
    import_state(optimizer, model, state)
    step(optimizer, model)

    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert any(name.endswith("|momentum_buffer") for name in export_state(optimizer, model))
