"""Largest values of settings that the learner sends to actors, so that what is sent is taken.

The bounds of the messages themselves are in `impala_common.codec`: a client ends when a response
breaks one, which would be far too late for a setting. A test compares the two.
"""

from __future__ import annotations

from typing import Any

from impala_common.config.checks import require

LARGEST: dict[str, int] = {
    "envs_per_actor": 1024,
    "atari_frame_skip": 1024,
    "atari_frame_stack": 1024,
    "atari_noop_max": 1 << 16,
    "unroll_length": 1 << 20,
    "feature_dim": 1 << 16,
    "hidden_dim": 1 << 16,
    "observation_scale": 10**30,
}
MAX_LAYERS, MAX_WIDTH = 64, 1 << 16


def require_carried(section: Any) -> None:  # Any: a dataclass of settings
    """Raises ConfigError for a setting of `section` that no message carries."""
    for name, largest in LARGEST.items():
        value = getattr(section, name, None)
        if value is not None:
            require(name, value, abs(value) <= largest, f"at most {largest}")
    widths = getattr(section, "hidden_sizes", ())
    are_carried = len(widths) <= MAX_LAYERS and max(widths, default=0) <= MAX_WIDTH
    rule = f"at most {MAX_LAYERS} widths of at most {MAX_WIDTH}"
    require("hidden_sizes", widths, are_carried, rule)
