"""Where metrics are served: IPv6 as well, and an error of the right kind for what is no address."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from running_server import RunningServer, make_config

from impala_common.errors import ConfigError
from impala_common.process.exit_codes import CONFIG, exit_code_of
from impala_policy_server.policy_metrics import PolicyMetrics

pytestmark = pytest.mark.timeout(60)


def has_ipv6() -> bool:
    """Returns whether this machine has the address ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_metrics_are_served_at_an_ipv6_address() -> None:
    """Before: "Address family for hostname not supported", told as a taken port."""
    metrics = PolicyMetrics("::1", -1)
    try:
        assert metrics.address.startswith("[::1]:")
        with urllib.request.urlopen(f"http://{metrics.address}/metrics", timeout=10) as page:
            assert b"process_cpu_seconds_total" in page.read()
    finally:
        metrics.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_host_that_is_not_this_machine_is_a_wrong_setting(host: str) -> None:
    """Before: 75, try again, for a port that is taken."""
    with pytest.raises(ConfigError, match=f"--prometheus-host is '{host}'") as caught:
        PolicyMetrics(host, -1)

    assert exit_code_of(caught.value) == CONFIG


def test_learner_says_so_too(tmp_path: Path) -> None:
    config = make_config(checkpoint={"prometheus_port": -1, "prometheus_host": "192.0.2.1"})

    with (
        pytest.raises(ConfigError, match=r"--prometheus-host is '192\.0\.2\.1'"),
        RunningServer(tmp_path / "run", config),
    ):
        pass
