"""Failed updates change nothing, or report that the weights are damaged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from running_server import make_config
from update_batches import VECTOR, make_batches, make_normalised

from impala_common.config import TrainConfig
from impala_common.errors import DeviceMemoryError
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import export_state, make_optimizer
from impala_server.learner.undo import Undo
from impala_server.learner.update import Updater
from impala_server.learner.update_result import UPDATE_VALUES


def make_updater(config: TrainConfig | None = None) -> Updater:
    model = make_normalised()
    config = config or make_config()
    return Updater(config, model, make_optimizer(config.optimizer, model), VECTOR.action)


def state_of(updater: Updater) -> dict[str, Any]:
    weights = {name: value.clone() for name, value in updater._model.state_dict().items()}
    return weights | export_state(updater._optimizer, updater._model)


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(other[name]), atol=tolerance, rtol=tolerance
        )


def test_update_without_memory_changes_nothing() -> None:
    """Seen to fail without statistics put back."""
    updater = make_updater()
    (batch,) = make_batches(1)
    updater.apply(batch, 1e-3)
    before = state_of(updater)
    compute = updater.compute_losses

    def compute_and_fail(batch: Batch) -> Any:
        compute(batch)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    updater.compute_losses = compute_and_fail  # type: ignore[method-assign]

    with pytest.raises(DeviceMemoryError, match=r"smaller --batch-size.*2\.00 GiB"):
        updater.apply(batch, 1e-3)

    assert_same(before, state_of(updater), 0.0)


def test_optimizer_that_runs_out_of_memory_damages_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a step may have been made: it is no update, and must not be tried again."""
    updater = make_updater()
    (batch,) = make_batches(1)

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(updater._optimizer, "step", fail)
    result = updater.apply(batch, 1e-3)

    assert not result.is_applied
    assert "may have made half" in result.damage


def test_step_that_makes_weights_not_finite_is_noticed() -> None:
    """Loss and gradient are finite, and yet the step overflows.

    Seen to fail without the look at the weights: they would be published.
    """
    updater = make_updater()
    (batch,) = make_batches(1)

    result = updater.apply(batch, 1e39)

    assert not result.is_applied
    assert "weights that are not finite" in result.damage
    assert torch.isfinite(result.values[UPDATE_VALUES.index("grad_norm")])


def test_statistics_of_numbers_whose_squares_no_float32_holds_are_no_damage() -> None:
    """Seen to fail: a variance of 1e41 in float64 was taken for weights that are not finite."""
    updater = make_updater()
    (batch,) = make_batches(1)
    (name,) = batch.inputs.observations
    observations = {name: batch.inputs.observations[name] * 1e20}

    result = updater.apply(
        batch._replace(inputs=batch.inputs._replace(observations=observations)), 1e-3
    )

    assert result.damage == ""
    assert result.is_applied


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_undo_forgets_the_first_step_of_a_parameter_and_no_other(optimizer: str) -> None:
    """A head that earlier batches did not use. Seen to fail: all state gone, then RuntimeError."""
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 1), "rare": torch.nn.Linear(2, 1)})
    config = make_config(optimizer={"optimizer": optimizer, "learning_rate": 0.1})
    steps = make_optimizer(config.optimizer, model)
    undo = Undo(model, steps, [])

    def make_step(*names: str) -> None:
        steps.zero_grad(set_to_none=True)
        torch.stack([model[name](torch.ones(1, 2)) for name in names]).sum().backward()
        steps.step()

    make_step("used")
    before = export_state(steps, model) | dict(model.state_dict())
    before = {name: torch.as_tensor(value).clone() for name, value in before.items()}

    undo.save(is_whole=True)
    make_step("used", "rare")
    undo.restore()

    assert_same(before, export_state(steps, model) | dict(model.state_dict()), 0.0)
