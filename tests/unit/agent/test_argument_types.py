"""Arguments of the class: convertible values are accepted, others refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from impala_agent.argument_types import as_count
from impala_agent.seed_settings import make_train_config
from impala_common.config.toml_io import dump_config
from impala_common.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "section", "setting", "expected"),
    [
        ("seed", np.int64(3), "job", "seed", 3),
        ("num_steps", 2e1, "rollout", "unroll_length", 20),
        ("lr", np.float32(0.5), "optimizer", "learning_rate", 0.5),
        ("max_grad_norm", 40, "optimizer", "max_grad_norm", 40.0),
        ("use_lstm", np.True_, "model", "recurrence", "lstm"),
        ("device", torch.device("cpu"), "job", "device", "cpu"),
    ],
)
def test_argument_becomes_the_plain_value_that_config_files_hold(
    name: str, value: Any, section: str, setting: str, expected: object
) -> None:
    """Planted: the value passed on as it came; numpy's numbers break config.toml."""
    config = make_train_config({name: value}, None)

    found = getattr(getattr(config, section), setting)
    assert found == expected
    assert type(found) is type(expected)
    assert "np." not in dump_config(config)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("seed", 1.5, "a whole number"),
        ("batch_size", True, "a whole number"),
        ("lr", "4e-4", "a number"),
        ("eps", None, "a number"),
        ("use_lstm", "False", "True or False"),
        ("tag", 3, "a string"),
        ("device", 0, "a string"),
        ("init_fn", 3, "a string"),
    ],
)
def test_argument_of_another_kind_is_refused_by_its_name(name: str, value: Any, rule: str) -> None:
    """Planted: numbers are not told from truth values."""
    with pytest.raises(ConfigError, match=f"{name} is .* but must be {rule}"):
        make_train_config({name: value}, None)


def test_config_that_is_no_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match="config is 5 but must be a TrainConfig"):
        make_train_config({}, 5)  # type: ignore[arg-type]


def test_count_is_a_whole_number_of_at_least_one() -> None:
    assert as_count("num_train_steps", 1e6) == 1_000_000
    for value in (0, 2.5, "10"):
        with pytest.raises(ConfigError, match="num_train_steps is"):
            as_count("num_train_steps", value)
