"""Returns of episodes as text for people, whatever the scale of rewards.

Used by every display, summary and table. Rewards may be as small as 1e-6 or as large as 1e6, so
digits after the point are chosen by the value.
"""

from __future__ import annotations

import math

_SIGNIFICANT = 3
_MIN_PLAIN, _MAX_PLAIN = 1e-6, 1e12


def show_return(value: float | None, *, beside: float | None = None, decimals: int = 2) -> str:
    """Returns a number with `decimals` digits after the point, or as many as show three digits.

    Args:
      value: a return, or an error or bound of one; None: "-" is returned.
      beside: the return that the number stands beside and has as many digits as; None: `value`.
      decimals: digits after the point at the least.
    """
    if value is None:
        return "-"
    scale = max(abs(value), abs(value if beside is None else beside))
    if not math.isfinite(value) or not _MIN_PLAIN <= scale < _MAX_PLAIN:
        return f"{value:.{_SIGNIFICANT}g}" if value else f"{0.0:.{decimals}f}"
    wanted = _SIGNIFICANT - 1 - math.floor(math.log10(scale))
    text = f"{value:,.{max(decimals, wanted)}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text
