"""Returns of any scale are shown with three digits at the least."""

from __future__ import annotations

import pytest

from impala_common.run.return_text import show_return


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (500.0, 2, "500.00"),
        (500.0, 1, "500.0"),
        (-162.84, 1, "-162.8"),
        (5.256, 1, "5.26"),
        (0.42, 1, "0.420"),
        (-0.0583, 2, "-0.0583"),
        (-0.00213, 2, "-0.00213"),
        (3.2e-7, 2, "3.2e-07"),
        (1_234_567.0, 2, "1,234,567.00"),
        (3.0e15, 2, "3e+15"),
        (0.0, 2, "0.00"),
        (-0.0, 1, "0.0"),
        (float("inf"), 2, "inf"),
        (None, 2, "-"),
    ],
)
def test_return_of_any_scale_is_shown_with_its_digits(
    value: float | None, decimals: int, text: str
) -> None:
    """The fault: two digits after the point showed -0.00 where rewards are small."""
    assert show_return(value, decimals=decimals) == text


def test_error_has_the_digits_of_the_return_that_it_stands_beside() -> None:
    assert show_return(0.0004, beside=-0.0583) == "0.0004"
    assert show_return(0.00004, beside=500.0) == "0.00"
    assert show_return(4.25, beside=0.01) == "4.25"
