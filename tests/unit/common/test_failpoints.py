"""Failpoints: off by default, armed by name, and refused for servers open to other machines."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

from impala_common.errors import ConfigError
from impala_common.process import failpoints
from impala_server.cli import run as run_server

ROOT = Path(__file__).parents[3]


def test_hit_while_nothing_is_armed_does_nothing_and_costs_nothing() -> None:
    assert not failpoints.hit("push.before_ack")

    seconds = min(timeit.repeat(lambda: failpoints.hit("push.before_ack"), number=1000, repeat=5))

    assert seconds / 1000 < 2e-6, "a look into an empty table"


def test_every_failpoint_is_placed_once_and_no_other_is() -> None:
    placed = []
    for package in ("common", "server", "actor_client"):
        for path in (ROOT / package).rglob("*.py"):
            placed += re.findall(r'failpoints\.hit\("([^"]+)"\)', path.read_text())

    assert sorted(placed) == sorted(failpoints.CATALOGUE)
    assert len(placed) >= 12


@pytest.mark.parametrize(
    "text",
    [
        "push.before_ack",
        "push.before_ack=explode",
        "push.before_ack=sleep",
        "push.before_ack=sleep:soon",
        "push.before_ack=drop:all",
        "push.before_ack=raise:systemexit",
        "push.before_ack=@0:drop",
        "push.before_ack=once:20%:drop",
        "push.before_ack=drop, push.after_ack=drop",
    ],
)
def test_parse_of_something_else_says_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("name=[once:|@N:|P%:]action")):
        failpoints.parse(text)


def test_parse_of_an_unknown_name_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"actor\.before_send.*restore\.mid_load"):
        failpoints.parse("push.between=drop")


def test_actions_happen_as_often_as_they_are_armed_for() -> None:
    def hits(action: str, number: int) -> list[bool]:
        with failpoints.armed(f"push.before_ack={action}; seed=3"):
            return [failpoints.hit("push.before_ack") for _ in range(number)]

    assert hits("drop", 3) == [True, True, True]
    assert hits("once:drop", 3) == [True, False, False]
    assert hits("@3:drop", 4) == [False, False, True, False]
    assert hits("30%:drop", 1000) == hits("30%:drop", 1000), "drawn from the seed"
    assert 200 < sum(hits("30%:drop", 1000)) < 400
    assert not failpoints.hit("push.before_ack"), "disarmed when the context ends"
    with failpoints.armed("push.before_ack=raise"), pytest.raises(failpoints.InjectedError):
        failpoints.hit("push.before_ack")
    with failpoints.armed("push.before_ack=raise:oserror"), pytest.raises(OSError, match="space"):
        failpoints.hit("push.before_ack")
    with failpoints.armed("push.before_ack=sleep:0.05"):
        assert timeit.timeit(lambda: failpoints.hit("push.before_ack"), number=1) >= 0.05


def test_kill9_ends_the_process_at_once() -> None:
    code = (
        "from impala_common.process import failpoints\n"
        "failpoints.arm_from_environment('127.0.0.1')\n"
        "try:\n    failpoints.hit('push.after_ack')\nfinally:\n    print('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={failpoints.VARIABLE: "push.after_ack=once:kill9"},
        capture_output=True,
        check=False,
        text=True,
    )

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "learner.example"])
def test_arming_where_other_machines_come_in_is_refused(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without the look at the host."""
    monkeypatch.setenv(failpoints.VARIABLE, "push.after_ack=drop")

    with pytest.raises(ConfigError, match="for tests, on loopback or a Unix socket"):
        failpoints.arm_from_environment(host)

    assert not failpoints.hit("push.after_ack")


def test_server_with_failpoints_on_a_public_address_ends_with_78(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, "push.after_ack=drop")
    arguments = ["--run-dir", str(tmp_path / "run"), "--host", "0.0.0.0", "--quiet"]
    arguments.append("--allow-insecure-public-bind-without-tls")

    assert run_server(arguments) == 78

    assert "IMPALA_FAILPOINTS" in capfd.readouterr().err
