"""Parameters that may be set while a run trains: bounds, rules, and resumes."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impala_common.config import TrainConfig
from impala_common.errors import InvalidRequestError, NotFoundError
from impala_server.learner.parameters import TABLE, ParameterTable, show


@pytest.mark.parametrize("name", TABLE)
def test_every_parameter_is_a_setting_within_its_own_bounds(name: str) -> None:
    parameter, table = TABLE[name], ParameterTable(TrainConfig())

    text = show(table.value_of(name))

    assert parameter.unpack(text) == table.value_of(name)
    assert parameter.meaning
    assert parameter.bounds


@pytest.mark.parametrize("name", TABLE)
def test_bounds_are_allowed_and_what_lies_beyond_is_not(name: str) -> None:
    parameter = TABLE[name]
    assert parameter.unpack(repr(parameter.high)) == parameter.high
    outside = [repr(parameter.high * 1.001 + 1), repr(parameter.low - 1)]
    if parameter.is_above_low:
        outside.append(repr(parameter.low))
    else:
        assert parameter.unpack(repr(parameter.low)) == parameter.low
    if not parameter.may_be_none:
        outside.append("none")
    if parameter.is_whole:
        outside.append("2.5")
    for text in (*outside, "nan", "inf", "-inf", "", " ", "1e999", "1,0", "0x1", "True", "1" * 99):
        with pytest.raises(InvalidRequestError, match=f"{name}: expected "):
            parameter.unpack(text)


@given(text=st.text(max_size=60))
def test_any_text_is_a_number_within_bounds_or_refused(text: str) -> None:
    try:
        value = TABLE["discount"].unpack(text)
    except InvalidRequestError:
        with pytest.raises(InvalidRequestError) as caught:
            TABLE["discount"].unpack(text)
        assert str(caught.value).isprintable()
        return
    assert value is not None
    assert math.isfinite(value)
    assert 0.0 <= value <= 1.0


@given(value=st.floats(1e-12, 1.0))
def test_shown_value_is_read_back_the_same(value: float) -> None:
    assert TABLE["learning_rate"].unpack(show(value)) == value


def test_set_changes_one_setting_and_returns_the_old_value() -> None:
    table = ParameterTable(TrainConfig())

    assert table.set("entropy_cost", "0.5", 0) == 0.01

    assert table.config.loss == dataclasses.replace(TrainConfig().loss, entropy_cost=0.5)
    assert table.config.optimizer == TrainConfig().optimizer


def test_set_that_breaks_a_rule_between_settings_changes_nothing() -> None:
    """V-trace needs c-bar <= rho-bar."""
    table = ParameterTable(TrainConfig())
    for name, text in (("clip_c_threshold", "2"), ("clip_rho_threshold", "0.5")):
        with pytest.raises(InvalidRequestError, match="at most clip_rho_threshold"):
            table.set(name, text, 0)
    assert table.config == TrainConfig()
    table.set("clip_rho_threshold", "none", 0)
    table.set("clip_c_threshold", "2", 0)


def test_total_steps_must_lie_ahead() -> None:
    table = ParameterTable(TrainConfig())
    with pytest.raises(InvalidRequestError, match="more than the 500 trained already"):
        table.set("total_steps", "500", 500)
    table.set("total_steps", "501", 500)
    assert table.config.job.total_steps == 501


def test_unknown_parameter_is_named_and_the_known_ones_listed() -> None:
    with pytest.raises(NotFoundError, match=r"'a\\x1bb'; there are: learning_rate, entropy"):
        ParameterTable(TrainConfig()).set("a\x1bb", "1", 0)


def test_restore_of_what_was_exported_sets_it_again() -> None:
    table = ParameterTable(TrainConfig())
    table.set("learning_rate", "0.00025", 0)
    table.set("clip_pg_rho_threshold", "none", 0)
    exported = json.loads(json.dumps(table.export()))

    again = ParameterTable(TrainConfig())
    again.restore(exported)

    assert again.config == table.config
    assert set(exported) == {"learning_rate", "clip_pg_rho_threshold"}
    ParameterTable(TrainConfig()).restore(None)  # a checkpoint from before there were any
