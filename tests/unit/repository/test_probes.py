"""Probes of the Kubernetes manifests: what each asks for, by its own command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from impala_common import health_cli
from impala_server.front_end.monitoring.health import ALIVE

KUBERNETES = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"


def containers(node: Any) -> Iterator[dict[str, Any]]:  # Any: YAML
    """Yields each container below `node`, whatever kind of workload it is in."""
    if isinstance(node, dict):
        yield from node.get("containers", ())
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from containers(one)


PROBED = {
    f"{path.parent.name}/{path.name}/{container['name']}": container
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    for container in containers(document)
    if "livenessProbe" in container and "--actor-file" not in str(container["livenessProbe"])
}


def asked_service(probe: dict[str, Any]) -> str:
    """Returns the service that a probe's command asks for."""
    command, *arguments = probe["exec"]["command"]
    assert command == "impala-health"
    service: str = health_cli._parse(arguments).service
    return service


def test_servers_without_an_end_have_a_liveness_probe() -> None:
    files = {name.rpartition("/")[0] for name in PROBED}

    assert files == {"training/learner.yaml", "thin/policy-server.yaml"}


@pytest.mark.parametrize("name", PROBED)
def test_liveness_probe_lets_a_server_drain(name: str) -> None:
    """Before: it asked for all of it, and killed a drained learner after two minutes."""
    alive, ready = (PROBED[name][kind] for kind in ("livenessProbe", "readinessProbe"))

    assert asked_service(alive) == ALIVE
    assert asked_service(ready) == ""
    for option in ("--server", "--ca-file"):
        assert option in str(alive), "asked with the address and the CA of the readiness probe"
    assert alive["timeoutSeconds"] == ready["timeoutSeconds"]
