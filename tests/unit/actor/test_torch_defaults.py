"""Environments that change torch's defaults: for the process, which the policy shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from impala_actor.environments.factory import make_environment
from impala_common.config.sections import ModelConfig
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.testing.environments import CountingEnv

CHANGES: dict[str, Callable[[], Any]] = {
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "gradients": lambda: torch.set_grad_enabled(False),
}


class Changing(CountingEnv):
    """Changes one of them when it is made."""

    def __init__(self, change: str) -> None:
        super().__init__()
        CHANGES[change]()


@pytest.fixture(autouse=True)
def _shipped_defaults() -> Iterator[None]:
    gymnasium.register("Changing-v0", entry_point=Changing)
    yield
    gymnasium.registry.pop("Changing-v0")
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("change", CHANGES)
def test_change_by_an_environment_is_undone_and_named(
    change: str, caplog: pytest.LogCaptureFixture
) -> None:
    from impala_common.config.sections import EnvironmentConfig

    config = EnvironmentConfig(env_kwargs=f'{{"change": "{change}"}}')
    make_environment("Changing-v0", 2, config).close()
    assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(1).device.type == "cpu"
    assert torch.is_grad_enabled()
    assert "torch's" in caplog.text


@pytest.mark.parametrize("change", ["dtype", "device"])
def test_network_is_float32_on_the_cpu_whatever_the_defaults(change: str) -> None:
    environment = make_environment("CartPole-v1", 1)
    spec = resolve_model_spec(ModelConfig(recurrence="lstm"), environment.spec)
    before = make_model(spec, environment.spec, seed=1).state_dict()
    CHANGES[change]()
    model = make_model(spec, environment.spec, seed=1)
    state = model.initial_state(2)
    torch.set_default_device(None)
    environment.close()
    assert {tensor.dtype for tensor in state} == {torch.float32}
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name].numpy())
