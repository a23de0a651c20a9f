"""Settings that the learner sends to clients: what no message carries is refused at once."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import pytest

from impala_common.codec.bounds_table import Exempt, Items, Text
from impala_common.codec.response_bounds import RESPONSE_BOUNDS
from impala_common.config import ModelConfig, TrainConfig
from impala_common.config.carried_sizes import LARGEST, MAX_LAYERS, MAX_WIDTH
from impala_common.errors import ConfigError

SECTIONS = typing.get_type_hints(TrainConfig)


def carried_settings() -> list[Any]:
    """Returns every setting of a number that the learner sends: section, name, what carries it."""
    names = {"envs_per_actor": ("GetConfigResponse", "environment_slot_count")}
    messages = ("EnvironmentOptions", "UnrollSpec", "ModelSpec", "LearnerLimits")
    for message in messages:
        names |= {field: (message, field) for field in RESPONSE_BOUNDS[message]}
    return [
        pytest.param(section, field.name, names[field.name], id=field.name)
        for section in SECTIONS.values()
        for field in dataclasses.fields(section)
        if field.name in names and not isinstance(bound_of(*names[field.name]), Exempt | Text)
    ]


def bound_of(message: str, field: str) -> Any:
    return RESPONSE_BOUNDS[message][field]


@pytest.mark.parametrize(("section", "name", "carrier"), carried_settings())
def test_setting_that_no_message_carries_is_refused(
    section: type, name: str, carrier: tuple[str, str]
) -> None:
    """Before: 100,000 slots were refused by the actor, after the start, as the learner's fault."""
    bound = bound_of(*carrier)
    if isinstance(bound, Items):
        beyond: list[Any] = [(8,) * (bound.max_count + 1), (int(bound.each.high) + 1,)]
    elif float(bound.high) == math.inf:
        return  # any number is carried
    else:
        beyond = [bound.high * 2] if isinstance(bound.high, float) else [bound.high + 1]

    for value in beyond:
        with pytest.raises(ConfigError, match=name):
            section(**{name: value})


def test_largest_settings_are_accepted() -> None:
    for section in SECTIONS.values():
        for field in dataclasses.fields(section):
            if field.name in LARGEST:
                section(**{field.name: LARGEST[field.name]})
    ModelConfig(hidden_sizes=(MAX_WIDTH,) * MAX_LAYERS)
