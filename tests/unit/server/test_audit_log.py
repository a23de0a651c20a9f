"""RUN/audit.jsonl: one line per change, for any text from clients."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from impala_server.front_end.admin import audit_log
from impala_server.front_end.admin.audit_log import AuditLog


def test_line_is_one_line_of_json_whatever_is_in_it(tmp_path: Path) -> None:
    """Seen to fail without `printable`: terminal codes reached the file's reader."""
    path = tmp_path / "audit.jsonl"
    nasty = '\n{"who": "root"}\x1b[31m\u2028\x00' + "x" * 10_000

    async def write() -> None:
        log = AuditLog(path)
        await log.write(nasty, "Pause", "ok", arguments={"name": nasty, nasty: 1}, new=3)

    asyncio.run(write())

    text = path.read_text()
    assert text.count("\n") == 1
    assert len(text) < 1200
    line = json.loads(text)
    assert (line["what"], line["outcome"], line["new"]) == ("Pause", "ok", 3)
    assert all(value.isprintable() for value in (line["who"], line["arguments"]["name"]))
    assert path.stat().st_mode & 0o777 == 0o600


def test_file_that_is_full_makes_room_and_one_older_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "_MAX_BYTES", 2000)
    path = tmp_path / "audit.jsonl"

    async def write() -> None:
        log = AuditLog(path)
        for number in range(100):
            await log.write("who", "Pause", "ok", number=number)

    asyncio.run(write())

    assert sorted(file.name for file in tmp_path.iterdir()) == ["audit.1.jsonl", "audit.jsonl"]
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    assert json.loads(path.read_text().splitlines()[-1])["number"] == 99


def test_two_files_in_one_folder_keep_an_older_one_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy server's beside a learner's. Before: both became audit.1.jsonl."""
    monkeypatch.setattr(audit_log, "_MAX_BYTES", 500)
    names = ("audit.jsonl", "policy_audit.jsonl")

    async def write() -> None:
        for name in names:
            log = AuditLog(tmp_path / name)
            for number in range(6):
                await log.write(name, "Drain", "ok", number=number)

    asyncio.run(write())

    older = {name: tmp_path / name.replace(".jsonl", ".1.jsonl") for name in names}
    assert {file.name for file in tmp_path.iterdir()} == {*names, *(p.name for p in older.values())}
    for name, path in older.items():
        assert {json.loads(line)["who"] for line in path.read_text().splitlines()} == {name}


def test_disk_that_refuses_costs_the_line_not_the_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(AuditLog(tmp_path / "no" / "audit.jsonl").write("who", "Pause", "ok"))

    assert "audit line could not be written" in caplog.text
