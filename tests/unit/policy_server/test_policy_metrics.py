"""The documentation lists what a policy server exports, and buckets count as Prometheus wants."""

from __future__ import annotations

import re
from pathlib import Path

from impala_policy_server.policy_metrics import NAMES
from impala_policy_server.serving_figures import Buckets

ROOT = Path(__file__).parents[3]


def test_page_lists_every_exported_name_with_its_help_and_no_other() -> None:
    page = (ROOT / "docs" / "thin_actors.md").read_text("utf-8")

    listed = re.findall(r"^\| `(impala_policy_server_\w+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE)

    assert dict(listed) == NAMES


def test_buckets_count_values_up_to_each_bound() -> None:
    """Seen to fail with bisect_right: a batch of 8 slots was not one of up to 8."""
    buckets = Buckets((1, 8))
    for value in (1, 2, 8, 9):
        buckets.add(value)

    assert list(buckets.cumulative()) == [("1", 1), ("8", 3), ("+Inf", 4)]
    assert buckets.total == 20
