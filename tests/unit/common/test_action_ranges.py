"""ActionRanges checks actions and logits of unrolls, component by component."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from impala_common.codec.unrolls import UnrollDecoder
from impala_common.errors import InvalidUnrollError
from impala_common.spec.specs import ActionPart, ActionSpec
from impala_common.testing.unrolls import make_unrolls, make_vector_spec, pack_stacked

CHOICES = ActionPart("action/a", "categorical", (2,), "int64", (2, 4), (7, -7))
FLAGS = ActionPart("action/b", "bernoulli", (2,), "int8")
NUMBERS = ActionPart(
    "action/c", "gaussian", (2,), "float32", lows=(-1.0, -math.inf), highs=(1.0, math.inf)
)
DISCRETE = make_vector_spec(action=ActionSpec((CHOICES, FLAGS)))
MIXED = make_vector_spec(action=ActionSpec((CHOICES, FLAGS, NUMBERS)))
PLAIN = make_vector_spec()


def decode(spec: Any, change: Any) -> dict[str, np.ndarray]:
    unrolls = make_unrolls(spec, 3, seed=1)
    change(unrolls)
    return UnrollDecoder(spec, 4).decode(pack_stacked(unrolls, spec, compress=False)).leaves


def setting(leaf: str, component: Any, value: float) -> Any:
    def change(unrolls: dict[str, np.ndarray]) -> None:
        array = unrolls[leaf]
        (array if component is None else array[..., component]).flat[-1] = value

    return change


@pytest.mark.parametrize("spec", [DISCRETE, MIXED, PLAIN])
def test_decode_of_actions_in_range_gives_them_back(spec: Any) -> None:
    unrolls = make_unrolls(spec, 3, seed=1)

    leaves = decode(spec, lambda unused_unrolls: None)

    for name in ("actions", "previous_action", "behaviour_policy_logits"):
        np.testing.assert_array_equal(leaves[name], unrolls[name], strict=True)


@pytest.mark.parametrize("leaf", ["actions", "previous_action"])
@pytest.mark.parametrize(
    ("spec", "component", "value", "text"),
    [
        (PLAIN, None, 5, r"expected values in \[0, 5\)"),
        (PLAIN, None, -1, r"expected values in \[0, 5\)"),
        (DISCRETE, 0, 2, r"values of action/a in \[0, 1\]"),
        (DISCRETE, 1, 4, r"values of action/a in \[0, 3\]"),
        (DISCRETE, 1, -1, r"values of action/a in \[0, 3\]"),
        (DISCRETE, 3, 2, r"values of action/b in \[0, 1\]"),
        (MIXED, 1, 4.0, r"values of action/a in \[0, 3\]"),
        (MIXED, 0, 0.5, "whole numbers where actions are discrete"),
        (MIXED, 2, 0.25, "whole numbers where actions are discrete"),
        (MIXED, 4, 1.1e6, r"values of action/c in \[-1e\+06, 1e\+06\]"),
        (MIXED, 5, -1.1e6, r"values of action/c in \[-1e\+06, 1e\+06\]"),
        (MIXED, 4, math.nan, "finite"),
    ],
)
def test_decode_of_action_out_of_range_is_refused_by_part(
    leaf: str, spec: Any, component: Any, value: float, text: str
) -> None:
    """Planted: the sizes of the first component taken for all; the environment's start added;
    whole numbers not demanded.
    """
    with pytest.raises(InvalidUnrollError, match=f"^{leaf}: .*{text}"):
        decode(spec, setting(leaf, component, value))


@pytest.mark.parametrize("value", [-20.5, 20.5])
def test_decode_of_log_std_out_of_range_is_refused_by_part(value: float) -> None:
    """Means may be anything finite; a log_std of 100 makes every ratio infinite."""
    num_logits = MIXED.environment.action.num_logits

    decode(MIXED, setting("behaviour_policy_logits", num_logits - 3, 1e5))

    with pytest.raises(InvalidUnrollError, match="log_stds of action/c of at most 20"):
        decode(MIXED, setting("behaviour_policy_logits", num_logits - 1, value))


def test_decode_of_far_gaussian_action_is_let_in() -> None:
    """It is no matter of the bounds: what is stored is the drawn number."""
    leaves = decode(MIXED, setting("actions", 4, 50.0))

    assert leaves["actions"].max() == 50.0
