"""Names that are paths, and names that forge log lines (docs/faults.md, 59, 60)."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from pathlib import Path

import grpc
import pytest
from admin_peer import admin_of
from faults.attacked import SERVICE, Attacked
from faults.row_figures import amount, record
from raw_peer import peer_of
from running_server import RunningServer

from impala_common.errors import ImpalaError, InvalidRequestError
from impala_common.run.checkpoints import CheckpointStore
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc

pytestmark = pytest.mark.timeout(300)

_PIECES = (
    "", ".", "..", "/", "//", "a/b", "../x", "../../x", "/etc/x", "~/x", "a/../x", "a/", "\x00",
    "a\x00", "\n", "a\n", "a b", " a", "a ", "\t", "\x1b[2J", "-a", "_a", ".a", "a" * 65,
    "a" * 4096, "C:\\x", "a\\b", "..\\x", "%2e%2e%2f", "..%2fx", "$HOME", "`id`", "$(id)", "a;b",
    "a|b", "a&b", "*", "a?", "a:b", "\u202ea", "\u2024\u2024/x", "\uff0e\uff0e/x", "\xe9",
    "e\u0301", "\xa0", "\ud7ff", "file:///x", "a,b", "a=b", "'a'", '"a"', "<a>", "{a}", "[a]",
    "a#b", "a@b", "a!b", "a^b",
)  # fmt: skip
NAMES = sorted(
    {*_PIECES}
    | {f"../{piece}" for piece in _PIECES}
    | {f"step-1/../{piece}" for piece in _PIECES}
    | {f"x{piece}/y" for piece in _PIECES}
)
"""More than 200, none of them a name."""


def test_no_name_leads_out_of_the_folder_of_checkpoints(tmp_path: Path) -> None:
    names = [name for name in NAMES if name != ""]  # without a name: the step is its name
    assert len(names) >= 200
    with RunningServer(tmp_path / "run") as server, peer_of(server) as peer:
        peer.register()
        before = _files_of(tmp_path)
        codes: Counter[str] = Counter()
        with admin_of(server) as admin:
            for name in names:
                for method in ("SaveCheckpoint", "Rollback"):
                    with pytest.raises(ImpalaError) as caught:
                        admin.ask(method, name=name)
                    codes[caught.value.reason] += 1
        after = _files_of(tmp_path)
        store = CheckpointStore(server.run.checkpoints_path)
        for name in names:
            with pytest.raises(ImpalaError):
                store.load(name)
    own = {str(server.run.audit_path), str(server.run.metrics_path)}
    made = after - before - own
    record(59, names=len(names), files_outside=len(made), refused=codes.total())
    assert not made, made
    assert codes.total() == 2 * len(names)
    assert set(codes) <= {"INVALID_REQUEST", "NOT_FOUND"}, codes


def test_link_in_place_of_a_checkpoint_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "manifest.json").write_text("{}")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    os.symlink(tmp_path / "elsewhere", folder / "best")

    assert CheckpointStore(folder).all_names() == []
    with pytest.raises(InvalidRequestError, match="expected 1 to 64"):
        CheckpointStore(folder).require_free("../elsewhere")


def test_what_clients_send_forges_no_line_of_the_log(attacked: Attacked) -> None:
    """Every line of the server's log stays one JSON object, and short."""
    forged = '"}\n{"level": "error", "message": "FORGED"}\x1b[2J\r\u2028' + "x" * (1 << 20)
    number = amount(10, 200)
    with attacked.channel() as channel, attacked.under_attack(60, max_rss_mib=200) as attack:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        actor = header_pb2.ActorHeader(actor_id=forged, actor_run_id=1)
        hello = learner_pb2.PushHello(actor=actor)
        goodbye = learner_pb2.PushGoodbye(text=forged)
        for _ in range(number):
            with contextlib.suppress(grpc.RpcError):
                stub.Register(
                    learner_pb2.RegisterRequest(
                        actor=actor, protocol_version=1, host=forged, model=forged
                    ),
                    timeout=20.0,
                )
            for payload in ({"hello": hello}, {"goodbye": goodbye}):
                with contextlib.suppress(grpc.RpcError):
                    list(
                        stub.PushUnrolls(
                            iter([learner_pb2.PushUnrollsRequest(**payload)]), timeout=20.0
                        )
                    )
            with contextlib.suppress(grpc.RpcError):
                channel.unary_unary(f"{SERVICE}Fly%0a{number}")(b"", timeout=20.0)
            call = channel.unary_unary(f"{SERVICE}GetConfig")
            with contextlib.suppress(grpc.RpcError):
                call(b"", timeout=20.0, metadata=(("user-agent", "a FORGED b"),))
        attack.figures |= {"forgeries": 5 * number}
    for line in attack.log:
        assert json.loads(line)["message"] != "FORGED"
        assert len(line) < 5000
        assert line.isascii()
        assert line.isprintable()


def _files_of(path: Path) -> set[str]:
    return {str(found) for found in path.rglob("*")} | {
        str(found) for found in path.parent.iterdir()
    }
