"""Updates that cannot be made: halves where memory is short, nothing where numbers are bad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from running_server import make_config
from update_batches import VECTOR, make_batches, make_normalised

from impala_common.config import TrainConfig
from impala_common.errors import DeviceMemoryError
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import export_state, make_optimizer
from impala_server.learner.split_batch import split_batch
from impala_server.learner.update import UPDATE_VALUES, Updater

NUM_LOSSES = 4


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


def fail_when(is_too_much: Callable[[Batch], bool], updater: Updater) -> list[int]:
    """Makes the forward pass of some batches run out of memory; returns the sizes asked for."""
    compute, sizes = updater.compute_losses, []

    def compute_or_fail(batch: Batch) -> Any:
        sizes.append(batch.actions.shape[1])
        if is_too_much(batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(batch)

    updater.compute_losses = compute_or_fail  # type: ignore[method-assign]
    return sizes


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_update_in_halves_equals_the_whole(reduction: str) -> None:
    """Row 10. Statistics of inputs are counted once, over the whole batch.

    Seen to fail with statistics counted again for the second try, with halves that have equal
    weights under "mean" (padding is uneven), and with gradients that the second half replaces.
    """
    config = make_config(loss={"loss_reduction": reduction, "reward_normalisation": "return_std"})
    batches = make_batches(3)
    whole, halved = make_updater(config), make_updater(config)
    size = batches[0].actions.shape[1]
    sizes = fail_when(lambda batch: batch.actions.shape[1] == size, halved)

    for batch in batches:
        wanted, found = whole.apply(batch, 1e-3), halved.apply(batch, 1e-3)
        assert found.is_applied
        torch.testing.assert_close(  # the last statistic, explained variance, is a ratio
            found.values[:-2], wanted.values[:-2], atol=1e-5, rtol=1e-5
        )

    assert_same(state_of(whole), state_of(halved), 1e-6)
    half = size // 2
    assert sizes == [size, half, size - half, *[half, size - half] * 2]  # it learned: whole no more


def test_update_without_memory_for_halves_changes_nothing() -> None:
    """Seen to fail without statistics put back."""
    updater = make_updater()
    (batch,) = make_batches(1)
    updater.apply(batch, 1e-3)
    before = state_of(updater)
    sizes = fail_when(lambda _batch: True, updater)

    with pytest.raises(DeviceMemoryError, match="smaller --batch-size"):
        updater.apply(batch, 1e-3)

    size = batch.actions.shape[1]
    assert sizes == [size, size // 2]  # one second try, and no third
    assert_same(before, state_of(updater), 0.0)


def test_split_batch_of_one_unroll_is_the_batch() -> None:
    (batch,) = make_batches(1)
    (one,) = split_batch(next(split_batch(batch, batch.actions.shape[1])), 2)
    assert one.actions.shape[1] == 1


def test_split_batch_parts_are_the_columns_in_order() -> None:
    (batch,) = make_batches(1)

    parts = list(split_batch(batch, 3))

    assert sum(part.num_steps for part in parts) == batch.num_steps
    for name in ("actions", "rewards", "is_padding", "behaviour_policy_logits", "terminated"):
        joined = torch.cat([getattr(part, name) for part in parts], dim=1)
        torch.testing.assert_close(joined, getattr(batch, name))
    for name, leaf in batch.inputs.observations.items():
        joined = torch.cat([part.inputs.observations[name] for part in parts], dim=1)
        torch.testing.assert_close(joined, leaf)


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
