"""Batches of the caller: what is derived, and ends of episodes that cannot be trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from impala_agent.batches import make_batch
from impala_common.config import ModelConfig
from impala_common.errors import SpecMismatchError
from impala_common.models.registry import resolve_model_spec
from impala_common.testing.unrolls import make_unrolls, make_vector_spec
from impala_server.learner.batch_loader import Batch

T = 6
SPEC = make_vector_spec(T)
MODEL = resolve_model_spec(ModelConfig(recurrence="lstm"), SPEC.environment)


def pack(num_columns: int = 1, **flags: list[int]) -> Batch:
    """A batch of random unrolls whose `flags` are True in these rows of every column."""
    values: dict[str, Any] = make_unrolls(SPEC, num_columns, seed=1)
    for name in ("is_first", "truncated", "is_padding"):
        del values[name]
    values["terminated"] = np.zeros((T, num_columns), np.bool_)
    for name, rows in flags.items():
        values[name] = np.zeros((T + (name == "is_first"), num_columns), np.bool_)
        values[name][rows] = True
    device = torch.device("cpu")
    return make_batch(
        values, None, SPEC.environment, SPEC.agent_state, MODEL, device, policy_version=3
    ).batch


def first_rows(**flags: list[int]) -> list[int]:
    is_first = pack(**flags).inputs.is_first
    return is_first[:, 0].nonzero().flatten().tolist()


def test_episode_opens_after_a_termination_without_a_padding_row() -> None:
    """Seen to fail with none where is_padding is given and False throughout."""
    assert first_rows(terminated=[1, 4]) == [2, 5]
    assert first_rows(terminated=[1, 4], is_padding=[]) == [2, 5]


def test_episode_opens_after_the_padding_row_of_an_end() -> None:
    assert first_rows(terminated=[1], is_padding=[2]) == [3]
    assert first_rows(truncated=[1], is_padding=[2]) == [3]
    assert first_rows(truncated=[1], terminated=[3], is_padding=[2]) == [3, 4]
    assert first_rows(terminated=[T - 2], is_padding=[T - 1]) == [T]


def test_final_observation_after_the_last_row_opens_no_episode() -> None:
    """Its value is the bootstrap value. Seen to fail: a network's memory was zeroed before it."""
    assert first_rows(truncated=[T - 1]) == []
    assert first_rows(truncated=[T - 1], is_padding=[]) == []


@pytest.mark.parametrize("flags", [{}, {"is_padding": []}, {"is_first": [3]}, {"is_first": []}])
def test_truncation_without_its_final_observation_is_refused(flags: dict[str, list[int]]) -> None:
    """Seen to pass: the row bootstrapped from the first observation of the next episode."""
    with pytest.raises(SpecMismatchError, match=r"truncated'\]\[2, 0\].*final obs.*padding row"):
        pack(truncated=[2], **flags)


def test_padding_row_of_the_next_episode_is_no_final_observation() -> None:
    with pytest.raises(SpecMismatchError, match="truncated"):
        pack(truncated=[2], is_padding=[3], is_first=[3])


def test_truncation_in_the_last_row_with_the_next_episode_behind_it_is_refused() -> None:
    with pytest.raises(SpecMismatchError, match=rf"\[{T - 1}, 0\]: .*observation {T}"):
        pack(truncated=[T - 1], is_first=[T])


def test_termination_that_is_also_a_truncation_needs_no_final_observation() -> None:
    assert first_rows(truncated=[2], terminated=[2]) == [3]


def test_flags_of_another_shape_are_named() -> None:
    """Before anything is derived from them."""
    values = dict(make_unrolls(SPEC, 2, seed=1))
    values["is_padding"] = np.zeros((T + 1, 2), np.bool_)
    del values["is_first"]
    with pytest.raises(SpecMismatchError, match="is_padding"):
        make_batch(values, None, SPEC.environment, SPEC.agent_state, MODEL, torch.device("cpu"), 0)
