"""Findings: each one with metrics made for it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from impala_common.run import metrics
from impala_common.spec.action_spec import ActionPart, ActionSpec
from impala_common.spec.specs import EnvironmentSpec
from impala_common.spec.tensor_spec import TensorRole, TensorSpec
from impala_server.findings import (
    FINDINGS,
    THRESHOLDS,
    Finding,
    FindingsMaker,
    as_metrics,
)

ROOT = Path(__file__).resolve().parents[3]
SOUND = {
    metrics.UPDATES: 1000.0,
    metrics.EPISODES: 500.0,
    metrics.RETURN_MEAN: 100.0,
    metrics.RETURN_STD: 20.0,
    metrics.STEPS_SINCE_EPISODE: 100.0,
    metrics.ENTROPY: 0.5,
    metrics.EXPLAINED_VARIANCE: 0.8,
    metrics.ADVANTAGE_STD: 0.4,
    metrics.RETURN_SCALE: 1.5,
    metrics.CLIPPED_STEP_SHARE: 0.5,
    metrics.GRAD_NORM: 0.6,
    metrics.EFFECTIVE_SAMPLE_SHARE: 0.95,
    metrics.KL_LAST: 0.01,
    metrics.POLICY_LAG_MEAN: 2.0,
}
"""A line of a run that goes well."""
WRONG: dict[str, dict[str, float]] = {
    "return_fell": {metrics.RETURN_MEAN: 30.0},
    "entropy_near_zero": {metrics.ENTROPY: 1e-4},
    "values_explain_nothing": {metrics.EXPLAINED_VARIANCE: -3.0},
    "gradient_always_clipped": {metrics.CLIPPED_STEP_SHARE: 1.0, metrics.GRAD_NORM: 180.0},
    "few_samples_count": {metrics.EFFECTIVE_SAMPLE_SHARE: 0.1},
    "policy_changes_too_fast": {metrics.KL_LAST: 0.4},
    "data_is_old": {metrics.POLICY_LAG_MEAN: 60.0},
    "no_episode_ended": {metrics.STEPS_SINCE_EPISODE: 880_000.0},
    "returns_too_large": {metrics.RETURN_SCALE: 9_000.0, metrics.ADVANTAGE_STD: 9_000.0},
    "returns_near_zero": {metrics.RETURN_SCALE: 1e-5},
}
"""What differs from it where one thing is wrong."""
MAX_GRAD_NORM = 0.5


def make_spec(action: ActionSpec | None = None, role: TensorRole = "") -> EnvironmentSpec:
    leaf = TensorSpec("observation", (2,), "int8" if role else "float32", role=role)
    return EnvironmentSpec((leaf,), action or ActionSpec.discrete(2))


def make_maker(action: ActionSpec | None = None, role: TensorRole = "") -> FindingsMaker:
    """Returns one that has seen a run begin at a return of 10 and go well since."""
    maker = FindingsMaker(make_spec(action, role))
    maker.update(SOUND | {metrics.RETURN_MEAN: 10.0}, MAX_GRAD_NORM)
    for _ in range(10):
        assert maker.update(SOUND, MAX_GRAD_NORM) == ()
    return maker


def found_by(
    maker: FindingsMaker, more: dict[str, float], num_lines: int = 30
) -> tuple[Finding, ...]:
    """Returns the findings of the last of some lines that differ from SOUND."""
    findings: tuple[Finding, ...] = ()
    for _ in range(num_lines):
        findings = maker.update(SOUND | more, MAX_GRAD_NORM)
    return findings


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_is_made_alone_and_goes_when_its_cause_goes(name: str) -> None:
    maker = make_maker()

    (finding,) = found_by(maker, WRONG[name])

    assert finding.name == name
    assert str(finding).startswith(name.replace("_", " ") + ": ")
    assert len(finding.text) > 60  # what was measured, and what to change
    assert found_by(maker, {}) == ()


@pytest.mark.parametrize(
    ("metric", "odd"),
    [
        (metrics.ENTROPY, 0.0),
        (metrics.EXPLAINED_VARIANCE, -1.5),
        (metrics.EFFECTIVE_SAMPLE_SHARE, 0.01),
        (metrics.KL_LAST, 0.25),
        (metrics.POLICY_LAG_MEAN, 60.0),
        (metrics.RETURN_SCALE, 0.0),
    ],
)
def test_one_odd_line_is_no_finding(metric: str, odd: float) -> None:
    """Planted: lines judged without averaging them."""
    assert found_by(make_maker(), {metric: odd}, 1) == ()


def test_nothing_is_judged_before_there_is_enough_to_judge() -> None:
    """Planted: min_lines and min_updates left out."""
    everything = {key: value for more in WRONG.values() for key, value in more.items()}
    maker = FindingsMaker(make_spec())
    few_updates = everything | {metrics.UPDATES: THRESHOLDS.min_updates - 1.0}

    assert found_by(maker, few_updates, 100) == ()
    maker = FindingsMaker(make_spec())
    assert found_by(maker, everything, THRESHOLDS.min_lines - 1) == ()
    assert found_by(maker, everything, 1) != ()


def test_return_that_fell_is_judged_by_what_was_gained_also_below_zero() -> None:
    """From -200 to -20 and back to -150. Planted: half of the best itself, here -10."""
    maker = FindingsMaker(make_spec())

    def names(now: float) -> list[str]:
        lines = found_by(maker, {metrics.RETURN_MEAN: now})
        return [finding.name for finding in lines]

    assert [names(value) for value in (-200.0, -20.0, -60.0)] == [[], [], []]
    assert names(-150.0) == ["return_fell"]
    assert names(-15.0) == []


def test_return_that_only_swings_has_not_fallen() -> None:
    """Blackjack: the mean of a hundred returns of -1 or 1 goes up and down by .1."""
    maker = FindingsMaker(make_spec())
    for now in (-0.1, 0.0, -0.1, 0.05, -0.08):
        line = {metrics.RETURN_MEAN: now, metrics.RETURN_STD: 0.95}
        assert found_by(maker, line) == ()


def test_first_episodes_are_no_best_return() -> None:
    """Planted: the mean of one lucky episode taken for the best."""
    maker = FindingsMaker(make_spec())
    found_by(maker, {metrics.RETURN_MEAN: 10.0, metrics.EPISODES: 2.0})
    found_by(maker, {metrics.RETURN_MEAN: 9_000.0, metrics.EPISODES: 3.0})

    assert found_by(maker, {metrics.RETURN_MEAN: 100.0}) == ()


def test_first_episodes_after_a_resume_are_no_best_return() -> None:
    """The count goes on, but the returns begin anew. Planted: the count of the whole run."""
    maker = FindingsMaker(make_spec(), num_episodes_before=500)
    names = [
        [finding.name for finding in found_by(maker, {metrics.RETURN_MEAN: mean} | count)]
        for mean, count in (
            (10.0, {metrics.EPISODES: 501.0}),
            (9_000.0, {metrics.EPISODES: 502.0}),
            (100.0, {metrics.EPISODES: 520.0}),
        )
    ]

    assert names == [[], [], []]
    assert found_by(maker, {metrics.RETURN_MEAN: 200.0, metrics.EPISODES: 540.0}) == ()
    found = found_by(maker, {metrics.RETURN_MEAN: 110.0, metrics.EPISODES: 560.0})
    assert [finding.name for finding in found] == ["return_fell"]


def test_rollback_takes_no_episodes_from_the_returns() -> None:
    """They are those of this life's last episodes. Seen to fail with the difference of counts."""
    maker = make_maker()
    found = found_by(maker, {metrics.RETURN_MEAN: 30.0, metrics.EPISODES: 10.0})
    assert [finding.name for finding in found] == ["return_fell"]

    assert found_by(maker, {metrics.RETURN_MEAN: 1000.0, metrics.EPISODES: 11.0}) == ()
    assert found_by(maker, {metrics.RETURN_MEAN: 100.0, metrics.EPISODES: 12.0}) != ()


def test_entropy_of_continuous_actions_is_not_judged() -> None:
    """It may well be below 0."""
    action = ActionSpec(
        (ActionPart("action", "gaussian", (2,), "float32", (), (), (-1.0,) * 2, (1.0,) * 2),)
    )
    maker = make_maker(action)

    assert found_by(maker, {metrics.ENTROPY: -4.0}) == ()


def test_entropy_of_masked_actions_is_not_judged() -> None:
    """Seen to fail: it is small by itself where masks leave few choices."""
    maker = make_maker(role="action_mask")

    assert found_by(maker, {metrics.ENTROPY: 0.001}) == ()


def test_explained_variance_of_returns_that_do_not_vary_is_not_judged() -> None:
    """A solved CartPole: all values alike, and right. Planted: the spread not looked at."""
    more = {
        metrics.EXPLAINED_VARIANCE: -0.5,
        metrics.ADVANTAGE_STD: 0.05,
        metrics.RETURN_SCALE: 10.0,
    }

    assert found_by(make_maker(), more) == ()


NOTHING_FOUND = {
    metrics.RETURN_MEAN: 0.0,
    metrics.RETURN_STD: 0.0,
    metrics.RETURN_MIN: 0.0,
    metrics.RETURN_MAX: 0.0,
    metrics.EXPLAINED_VARIANCE: -3.5,
    metrics.ADVANTAGE_STD: 0.01,
    metrics.RETURN_SCALE: 0.02,
}
"""A run without any reward: value targets are the optimizer's noise."""


def test_run_without_any_reward_is_told_so_and_nothing_about_its_values() -> None:
    """Seen to fail: "values explain nothing", and silence about the rewards."""
    maker = FindingsMaker(make_spec())

    (finding,) = found_by(maker, NOTHING_FOUND)

    assert finding.name == "returns_near_zero"
    assert "every return so far is 0" in finding.text
    rare = NOTHING_FOUND | {metrics.RETURN_MEAN: 0.01, metrics.RETURN_MAX: 1.0}
    assert [one.name for one in found_by(maker, rare)] == ["values_explain_nothing"]


def test_task_solved_at_a_return_of_zero_has_found_its_rewards() -> None:
    maker = make_maker()
    found_by(maker, {metrics.RETURN_MEAN: -50.0})

    names = [one.name for one in found_by(maker, NOTHING_FOUND)]

    assert "returns_near_zero" not in names


def test_gradients_that_are_not_clipped_are_never_too_large_for_the_clip() -> None:
    maker = make_maker()
    for _ in range(30):
        found = maker.update(SOUND | WRONG["gradient_always_clipped"], 0.0)

    assert found == ()


def test_lines_without_updates_or_with_nan_change_nothing() -> None:
    maker = make_maker()
    waiting = dict.fromkeys(SOUND, math.nan) | {
        metrics.UPDATES: 1000.0,
        metrics.STEPS_SINCE_EPISODE: 0.0,
    }
    for _ in range(20):
        assert maker.update(waiting, MAX_GRAD_NORM) == ()
        assert maker.update({metrics.UPDATES: 1000.0}, MAX_GRAD_NORM) == ()


def test_metrics_say_which_findings_hold() -> None:
    found = as_metrics((Finding("data_is_old", "x"),))

    assert found.keys() == set(FINDINGS.values())
    assert [name for name, value in found.items() if value] == [metrics.FINDING_LAG]


def test_each_finding_has_a_section_and_an_alert() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")

    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)

    assert headings == [name.replace("_", " ") for name in FINDINGS]
    for name in FINDINGS:
        assert f'impala_finding{{finding="{name}"}} == 1' in alerts
