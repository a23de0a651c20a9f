"""Alerts, dashboard and docs/operations.md against what the exporter really exports.

promtool and Grafana are no packages of a registry, so nobody here parses PromQL: names, labels
and brackets are checked, and that the files are what their readers expect.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from impala_common.run.metrics import BOTTLENECK_PARTS
from impala_server.front_end.monitoring.prometheus import LearnerCollector
from impala_server.front_end.monitoring.prometheus_series import SERIES, STATES, exported_names
from impala_server.front_end.monitoring.rpc_metrics import RPC_NAMES

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
OF_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
OF_PROMETHEUS = {"up"}
KNOWN = {*exported_names(), *RPC_NAMES, *OF_PROCESS, *OF_PROMETHEUS}
LABELS = {"instance", "job", "state", "part", "grpc_type", "grpc_method", "grpc_code", "le"} | {
    series.label for series in SERIES if series.label
}
WORDS = {"rate", "increase", "sum", "by", "and", "on", "avg_over_time", "max_over_time"} | {
    "histogram_quantile",
    "label_values",
}
VALUES = {
    "state": set(STATES),
    "part": set(BOTTLENECK_PARTS),
    "job": {"impala"},
    "grpc_type": {"unary"},
}
for one in SERIES:
    if one.label:
        VALUES.setdefault(one.label, set()).add(one.value)


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/impala.json").read_text())
    return found


def expressions() -> dict[str, str]:
    found = {f"alert {rule['alert']}": rule["expr"] for rule in alerts()}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for variable in dashboard()["templating"]["list"]:
        found[f"variable {variable['name']}"] = variable["query"]["query"]
    return found


def faults_of(expression: str) -> list[str]:
    """Returns what in a PromQL expression this project's exporter does not have."""
    faults = [
        f"{kind} do not match"
        for kind, opening, closing in (("brackets", "(", ")"), ("braces", "{", "}"))
        if expression.count(opening) != expression.count(closing)
    ]
    for label, text in re.findall(r"(\w+)\s*=~?\s*\"([^\"]*)\"", expression):
        values = set(text.split("|")) - {"$instance"}
        if label in VALUES and not values <= VALUES[label]:
            faults.append(f"no such values of {label}: {values - VALUES[label]}")
    bare = re.sub(r"\"[^\"]*\"|\[[^\]]*\]", "", expression)
    for name in re.findall(r"[a-zA-Z_]\w*", bare):
        metric = re.sub(r"(?<=_seconds)_(bucket|sum|count)$", "", name)
        if name not in LABELS | WORDS and metric not in KNOWN:
            faults.append(f"no such metric or label: {name}")
    return faults


@pytest.mark.parametrize("where", expressions())
def test_expression_uses_what_is_exported(where: str) -> None:
    assert faults_of(expressions()[where]) == []


@pytest.mark.parametrize(
    "expression",
    [
        "impala_trained_step_total > 0",
        'impala_state{state="RUNING"} == 1',
        "rate(impala_updates_total[1m]",
        'impala_loss{part="x"}',
        "impala_loss{sort='total'}",
    ],
)
def test_wrong_expression_is_found(expression: str) -> None:
    assert faults_of(expression)


def test_alerts_have_what_prometheus_and_people_need() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for rule in alerts():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "action"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert f"`{rule['alert']}`" in page


def test_dashboard_is_one_that_grafana_provisions() -> None:
    board = dashboard()
    panels = board["panels"]
    assert board["uid"] == "impala"
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in panels]
    assert all(x + w <= 24 for x, _, w, _ in places)
    for i, (x, y, w, h) in enumerate(places):
        for other_x, other_y, other_w, other_h in places[:i]:
            is_apart = x >= other_x + other_w or other_x >= x + w
            assert is_apart or y >= other_y + other_h or other_y >= y + h
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {
        source["datasources"][0]["uid"]
    }
    provider = yaml.safe_load((provisioning / "dashboards" / "impala.yml").read_text())
    assert provider["providers"][0]["options"]["path"]


def test_prometheus_scrapes_one_job_and_reads_the_alerts() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())

    assert [job["job_name"] for job in settings["scrape_configs"]] == ["impala"]
    assert settings["rule_files"] == ["alerts.yml"]


def test_page_lists_every_metric() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `((?:impala|grpc_server)_\w+)`", page, re.M))

    assert listed == {*exported_names(), *RPC_NAMES}
    assert LearnerCollector.__doc__
