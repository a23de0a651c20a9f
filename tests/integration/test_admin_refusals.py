"""The admin service against bad, replayed and concurrent commands, and impala-admin itself."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from admin_peer import Admin, admin_of, audit
from raw_peer import peer_of
from running_server import RunningServer, make_config

from impala_actor.admin_cli import run as run_cli
from impala_common.errors import (
    IllegalTransitionError,
    ImpalaError,
    InvalidRequestError,
    NotFoundError,
    RunMismatchError,
    UnauthenticatedError,
)
from impala_common.process import exit_codes
from impala_common.rpc.security import ClientSecurity
from impala_common.rpc.tokens import make_token

pytestmark = pytest.mark.timeout(60)


def test_same_request_has_one_effect(training: RunningServer) -> None:
    """Seen to fail without the cache: the second answer was ALREADY_EXISTS."""
    with admin_of(training, request_id="once") as admin:
        first = admin.ask("SaveCheckpoint", name="good")
        second = admin.ask("SaveCheckpoint", name="good")
        assert first == second
        with pytest.raises(InvalidRequestError, match="used for another request"):
            admin.ask("SaveCheckpoint", name="other")
    assert [line["outcome"] for line in audit(training)] == ["ok", "INVALID_REQUEST"]
    assert not (training.run.checkpoints_path / "other").exists()


def test_command_for_another_life_is_refused(training: RunningServer) -> None:
    with admin_of(training, expected_run_id=7) as other:
        with pytest.raises(RunMismatchError, match="it was restarted; nothing was done"):
            other.ask("Pause")
        run_id = int(other.status()["learner"]["learner_run_id"], 16)
    with admin_of(training, expected_run_id=run_id) as admin:
        assert admin.ask("Pause")["state"] == "PAUSED"


BAD_NAMES = ("..", "../x", "/etc/passwd", "a/b", ".hidden", "-x", "a\0b", "a\nb", "\x1b[31m", "é",
             "step-000000000001", "rolled-back-x", "x" * 65, "a b")  # fmt: skip
BAD: list[tuple[str, dict[str, Any], type[ImpalaError]]] = [
    *[("SaveCheckpoint", {"name": name}, InvalidRequestError) for name in BAD_NAMES],
    *[("Rollback", {"name": name}, NotFoundError) for name in (*BAD_NAMES, "", "nothing")],
    *[
        ("SetParameter", {"name": name, "value": value}, InvalidRequestError)
        for name, value in (
            ("learning_rate", "0"), ("learning_rate", "1.1"), ("learning_rate", "-1"),
            ("learning_rate", "nan"), ("learning_rate", "inf"), ("learning_rate", "none"),
            ("learning_rate", ""), ("learning_rate", "1e-3; rm"), ("learning_rate", "\u0661"),
            ("learning_rate", "1" * 10_000), ("learning_rate", "0x1"), ("learning_rate", "1_0e-3"),
            ("entropy_cost", "-0.1"), ("baseline_cost", "101"), ("discount", "1.01"),
            ("clip_rho_threshold", "0"), ("clip_rho_threshold", "0.5"), ("clip_c_threshold", "2"),
            ("vtrace_lambda", "-1"), ("max_grad_norm", "-1"), ("max_policy_lag", "1.5"),
            ("max_policy_lag", "-1"), ("total_steps", "0"), ("total_steps", "1"),
        )
    ],
    *[
        ("SetParameter", {"name": name, "value": "1"}, NotFoundError)
        for name in ("", "no_such", "__class__", "learning_rate\n", "loss.discount", "seed")
    ],
    ("EvictActor", {"actor_id": "nobody"}, NotFoundError),
    *[
        ("EvictActor", {"actor_id": name, "is_ban": True}, InvalidRequestError)
        for name in ("", "a b", "a\nb", "x" * 65)
    ],
    ("EvictActor", {"actor_id": "actor-0", "text": "x" * 201}, InvalidRequestError),
    ("UnbanActor", {"actor_id": "nobody"}, NotFoundError),
    ("SetLogLevel", {}, InvalidRequestError),
    ("SetLogLevel", {"level": 99}, InvalidRequestError),
    *[("Profile", {"update_count": count}, InvalidRequestError) for count in (0, -1, 101)],
]  # fmt: skip


def test_bad_arguments_are_refused_without_effect_each_with_an_audit_line(
    training: RunningServer, admin: Admin
) -> None:
    admin.ask("SetParameter", name="entropy_cost", value="0.02")
    parameters = admin.ask("ListParameters")
    files = {path for path in training.run.path.parent.rglob("*") if "checkpoints" in str(path)}
    lines_before = len(audit(training))

    for method, fields, kind in BAD:
        with pytest.raises(ImpalaError) as caught:
            admin.ask(method, **fields)
        assert type(caught.value) is kind, (method, fields, caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000

    assert admin.ask("ListParameters") == parameters
    assert {
        path for path in training.run.path.parent.rglob("*") if "checkpoints" in str(path)
    } == files
    assert admin.status()["state"] == "RUNNING"
    assert admin.ask("ListActors")["banned_actor_ids"] == []
    lines = audit(training)[lines_before:]
    assert [line["outcome"] for line in lines] == [kind.reason for _, _, kind in BAD]
    assert max(len(json.dumps(line)) for line in lines) < 1500


@pytest.mark.parametrize("request_id", [" ", "a b", "../x", "x" * 65, "a\n"])
def test_request_id_that_is_none_is_refused(server: RunningServer, request_id: str) -> None:
    with (
        admin_of(server, request_id=request_id) as admin,
        pytest.raises(InvalidRequestError, match="request_id"),
    ):
        admin.ask("Shutdown")
    assert [line["outcome"] for line in audit(server)] == ["INVALID_REQUEST"]


def test_commands_before_the_first_actor_say_what_is_allowed(admin: Admin) -> None:
    for method in ("Pause", "Resume", "SaveCheckpoint", "Rollback", "SetParameter", "Drain"):
        with pytest.raises(IllegalTransitionError, match="STARTING; allowed now: shutdown"):
            admin.ask(method)
    asked = [("ListParameters", {})]
    asked += [(method, {"actor_id": "a"}) for method in ("EvictActor", "UnbanActor")]
    for method, fields in asked:
        with pytest.raises(IllegalTransitionError, match="first actor"):
            admin.ask(method, **fields)


def test_eight_clients_at_once_see_one_order_of_states(
    training: RunningServer, admin: Admin
) -> None:
    """Whoever is told "ok" moved the state: pauses and resumes alternate in the audit."""
    started = threading.Barrier(8)

    def work(index: int) -> int:
        done = 0
        with admin_of(training) as client:
            started.wait(10.0)
            for round_ in range(12):
                method = "Pause" if (index + round_) % 2 else "Resume"
                with contextlib.suppress(IllegalTransitionError):
                    client.ask(method)
                    done += 1
        return done

    with ThreadPoolExecutor(8) as pool:
        num_done = sum(pool.map(work, range(8)))

    moves = [(line["what"], line["new"]) for line in audit(training) if line["outcome"] == "ok"]
    assert len(moves) == num_done > 2
    num_pauses = sum(what == "Pause" for what, _ in moves)
    is_paused = admin.status()["state"] == "PAUSED"
    assert num_pauses - (num_done - num_pauses) == int(is_paused)


def test_unknown_bytes_do_not_break_the_service(server: RunningServer, admin: Admin) -> None:
    call = admin._channel.unary_unary("/impala_rl.v1.AdminService/SetParameter")
    import grpc

    with pytest.raises(grpc.RpcError):
        call(b"\xff" * 100, timeout=5.0)
    assert admin.status()["state"] == "STARTING"


COMMANDS = (
    "status", "watch --count 2 --interval-s 0.1", "actors", "parameters", "checkpoints", "pause",
    "resume", "checkpoint good", "set entropy_cost 0.02", "rollback good", "logs warning",
    "profile 1", "evict actor-0", "ban ghost", "unban ghost", "drain", "shutdown",
)  # fmt: skip


def test_every_command_of_impala_admin_as_text_and_as_json(
    training: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in COMMANDS:
        words = command.split()
        code = run_cli([*words, "--run", str(training.run.path), "--json"])
        printed = capsys.readouterr()
        assert code == exit_codes.OK, (command, printed.err)
        for line in printed.out.splitlines():
            json.loads(line)
        if words[0] in ("status", "actors", "parameters", "checkpoints", "watch"):
            assert run_cli(["--run", str(training.run.path), *words]) == exit_codes.OK
            assert capsys.readouterr().out.strip()
    training.wait_until(lambda status: status["state"] == "STOPPED")


def test_impala_admin_without_a_learner_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["status", "--run", str(tmp_path)]) == exit_codes.CONFIG
    assert "no learner runs there" in capsys.readouterr().err
    address = f"unix:{tmp_path}/nothing.sock"
    code = run_cli(["status", "--address", address, "--timeout-s", "0.5"])
    assert code == exit_codes.UNAVAILABLE
    assert "no learner answers at" in capsys.readouterr().err


def test_with_an_admin_token_nobody_else_administrates(tmp_path: Path) -> None:
    """Seen to fail with a listener without the interceptor."""
    token, wrong = tmp_path / "admin.token", tmp_path / "wrong.token"
    for path in (token, wrong):
        path.touch(mode=0o600)
        path.write_text(make_token() + "\n")
    config = make_config(security={"admin_token_file": str(token)})
    with RunningServer(tmp_path / "run", config) as server:
        for security in (ClientSecurity(), ClientSecurity(token_file=str(wrong))):
            with (
                admin_of(server, security=security) as stranger,
                pytest.raises(UnauthenticatedError),
            ):
                stranger.ask("Shutdown")
        with admin_of(server, security=ClientSecurity(token_file=str(token))) as admin:
            assert admin.status()["state"] == "STARTING"
            with pytest.raises(IllegalTransitionError):
                admin.ask("Pause")
    assert [line["who"] for line in audit(server)] == ["admin token unix:"]


def test_learner_goes_on_while_its_supervisor_reads_nothing(
    server: RunningServer, admin: Admin
) -> None:
    """As when its terminal was stopped; seen to fail (no answer) with a send that waits."""
    with peer_of(server) as peer:
        peer.register()
        for _ in range(300):  # each is told to the supervisor, whom nobody polls here
            admin.ask("Pause")
            admin.ask("Resume")
    assert admin.status()["state"] == "RUNNING"
