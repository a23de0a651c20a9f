"""A minute of the nemesis: every kind of fault once, and no promise is broken.

`make faults` and `make soak` are the same with more of each. Real processes; see faults.cluster.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults.cluster import Cluster
from faults.nemesis import RETURN_BAR, Nemesis
from faults.plan import MARKS, SHORT_MINUTES, Fault, counts_for, make_plan

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

_SPAN_S = 20.0
_SHORT_S = 1.5


def shorten(fault: Fault) -> Fault:
    """Returns a fault that lasts no longer than a test may."""
    return Fault(
        fault.at_s, fault.kind, fault.target, min(fault.duration_s, _SHORT_S), fault.detail
    )


def test_nemesis_plan_of_every_kind_breaks_no_promise(tmp_path: Path) -> None:
    """One plan, two actors; about forty seconds."""
    counts = dict.fromkeys(MARKS, 1) | {"actor_kill": 3}
    plan = [shorten(fault) for fault in make_plan(5, _SPAN_S, counts)]

    with Cluster(tmp_path, num_actors=2) as cluster:
        result = Nemesis(cluster, plan, _SPAN_S).run(heal_s=60.0)

    assert result["violations"] == [], json.dumps(result, indent=1)
    assert result["actor_kills"] >= 3
    assert result["history"]["unrolls_trained"] > 0
    assert result["mean_return"] >= RETURN_BAR


def test_plan_of_a_seed_is_the_same_again_and_has_what_was_asked_for() -> None:
    counts = counts_for(SHORT_MINUTES)
    plan = make_plan(3, 900.0, counts)

    assert plan == make_plan(3, 900.0, counts)
    assert plan != make_plan(4, 900.0, counts)
    assert {kind: sum(one.kind == kind for one in plan) for kind in counts} == counts
    assert counts["actor_kill"] >= 100
    assert counts["learner_kill"] + counts["learner_kill_in_save"] >= 20
    assert counts["learner_kill_in_save"] >= 5
    partitions = [one.duration_s for one in plan if one.kind == "partition"]
    assert len(partitions) >= 5
    assert all(10 <= seconds <= 30 for seconds in partitions)
    soak = counts_for(120)
    assert soak["actor_kill"] >= 2000
    assert soak["learner_kill"] + soak["learner_kill_in_save"] >= 300
    assert soak["learner_kill_in_save"] >= 100
    assert soak["partition"] >= 60
