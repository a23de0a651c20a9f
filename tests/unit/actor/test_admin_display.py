"""Display of impala-admin: one screen for any status, and no markup in text from clients."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console, RenderableType

from impala_actor.admin.admin_client import to_json
from impala_actor.admin.admin_display import (
    Dashboard,
    describe_status,
    render_actors,
    render_checkpoints,
    render_parameters,
    render_status,
)
from impala_common.run import metrics
from impala_rl.v1 import admin_pb2, header_pb2


def make_status(**numbers: float) -> dict[str, Any]:
    message = admin_pb2.LearnerStatus(
        learner=header_pb2.LearnerHeader(learner_run_id=2**63 + 1, policy_version=7),
        state=admin_pb2.LEARNER_STATE_RUNNING,
        run_path="/runs/[red]x[/red]\x1b[31m",
        bottleneck="environment: actors spend 90 % of their time there",
        storage_bytes=3 << 20,
        metrics=numbers,
    )
    message.uptime.FromSeconds(3725)
    return to_json(message)


def show(renderable: RenderableType) -> str:
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_json_has_plain_numbers_and_short_names() -> None:
    status = make_status()

    assert status["learner"]["learner_run_id"] == "8000000000000001"
    assert status["state"] == "RUNNING"
    assert status["uptime_s"] == 3725.0
    assert status["storage_bytes"] == 3 << 20
    assert status["metrics"] == {}


def test_status_is_one_screen_whatever_is_known() -> None:
    numbers = dict.fromkeys(metrics.ALL_METRICS, 1.0) | {metrics.RETURN_MEAN: float("nan")}
    for status in (make_status(), make_status(**numbers)):
        text = show(render_status(status))
        assert len(text.splitlines()) <= 24
        assert "RUNNING" in text
        assert "up 1:02:05" in text
        assert "3.0 MiB" in text
        assert "bottleneck   environment: " in text
        assert "[red]x[/red]" in text  # not taken for markup
        assert "\x1b" not in text
        assert "\n" not in describe_status(status)
    assert "evaluation   1.00 ± 1.00, greedy 1.00, best 1.00 at step 1" in text


def test_status_says_what_is_wrong_with_learning() -> None:
    status = make_status() | {"findings": ["return fell: it was 500", "data is old: 60 updates"]}

    text = show(render_status(status))

    assert "learning     return fell: it was 500" in text
    assert text.index("return fell") < text.index("data is old") < text.index("run ")
    assert describe_status(status).endswith("; return fell; data is old")


def test_dashboard_draws_the_course_of_the_return() -> None:
    dashboard = Dashboard()
    for value in (1.0, 2.0, 3.0):
        dashboard.update(make_status(**{metrics.RETURN_MEAN: value}))

    assert "3.00  ▁▄█" in show(dashboard.render())


def test_tables_take_names_as_they_are() -> None:
    actors = admin_pb2.ListActorsResponse(banned_actor_ids=["b"])
    actors.actors.add(actor_id="a", host="[bold]h\n\x1b[2J", is_connected=True, policy_lag=3)
    text = show(render_actors(to_json(actors)))
    assert "[bold]h\\n\\x1b[2J" in text
    assert "banned: b" in text

    assert "connected" not in text, "a learner older than totals"

    actors.totals.actor_count, actors.totals.connected_actor_count = 1000, 900
    text = show(render_actors(to_json(actors)))
    assert "1,000 actors (999 not shown: --limit 0), 900 connected" in text

    checkpoints = admin_pb2.ListCheckpointsResponse()
    checkpoints.checkpoints.add(name="best", trained_steps=1234, is_kept=True)
    assert "1,234" in show(render_checkpoints(to_json(checkpoints)))

    parameters = admin_pb2.ListParametersResponse()
    parameters.parameters.add(name="discount", value="0.9", configured_value="0.99")
    assert "0.99" in show(render_parameters(to_json(parameters)))


@pytest.mark.parametrize("kind", ["GetStatus", "ListActors", "ListCheckpoints", "SaveCheckpoint"])
def test_every_empty_answer_can_be_told_as_json(kind: str) -> None:
    assert to_json(getattr(admin_pb2, f"{kind}Response")()) is not None
