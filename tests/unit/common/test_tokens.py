"""Token files: who may read them, what may be in them, and what never shows."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

import pytest

from impala_common.errors import ConfigError
from impala_common.rpc import tokens
from impala_common.rpc.tokens import Scope, TokenBook, make_token, read_token

ACTOR, ADMIN = "a1" * 32, "b2" * 32  # the same in every process of a parallel test run


def write(path: Path, content: str, mode: int = 0o600) -> str:
    path.write_text(content)
    path.chmod(mode)
    return str(path)


def test_made_tokens_are_32_random_bytes_each() -> None:
    made = {make_token() for _ in range(100)}

    assert len(made) == 100
    assert {len(bytes.fromhex(token)) for token in made} == {32}


@pytest.mark.parametrize("mode", [0o600, 0o400])
@pytest.mark.parametrize("end", ["", "\n", " \r\n"])
def test_token_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int, end: str) -> None:
    assert read_token("--token-file", write(tmp_path / "t", ACTOR + end, mode)) == ACTOR


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o440, 0o444, 0o620, 0o602, 0o666])
def test_token_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Seen to fail with only "others" looked at, not the group."""
    path = write(tmp_path / "t", ACTOR, mode)

    with pytest.raises(ConfigError, match=f"its mode is {mode:04o}; chmod 600"):
        read_token("--token-file", path)


class ReadOnlyMount:
    f_flag = os.ST_RDONLY


@pytest.mark.parametrize(
    ("mode", "is_allowed"), [(0o444, True), (0o440, True), (0o644, True), (0o664, False)]
)
def test_token_file_on_a_read_only_mount_may_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_allowed: bool
) -> None:
    """Secrets of containers: root's, 0444, mounted read-only."""
    path = write(tmp_path / "t", ACTOR, mode)
    monkeypatch.setattr(tokens.os, "fstatvfs", lambda unused_descriptor: ReadOnlyMount)

    if is_allowed:
        assert read_token("--token-file", path) == ACTOR
        return
    with pytest.raises(ConfigError, match="its mode is 0664"):
        read_token("--token-file", path)


@pytest.mark.parametrize(
    "content", ["", "\n", ACTOR[:-1], "x" * 64, f"{ACTOR}\n{ADMIN}", ACTOR * 9, "ä" * 64, "\0" * 64]
)
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "t", content)

    with pytest.raises(ConfigError, match="at least 64 hexadecimal digits") as caught:
        read_token("--token-file", path)

    assert len(content) < 8 or content not in str(caught.value)


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(ConfigError, match="must be a readable file"):
        read_token("--token-file", str(tmp_path / what))


@pytest.mark.parametrize(
    ("presented", "scope"),
    [
        (ACTOR, Scope.ACTOR),
        (ADMIN, Scope.ADMIN),
        ("c3" * 32, None),
        ("", None),
        (ACTOR[:-1], None),
        (ACTOR + "0", None),
        (f" {ACTOR}", None),
        ("\udcff\u1234", None),
    ],
)
def test_book_knows_a_token_only_when_it_is_the_whole_of_it(
    presented: str, scope: Scope | None
) -> None:
    book = TokenBook({Scope.ACTOR: ACTOR, Scope.ADMIN: ADMIN})

    assert book.scope_of(presented) is scope


def test_book_compares_digests_with_all_tokens_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen to fail with `==`, and with a return from inside the loop."""
    book = TokenBook({Scope.ACTOR: ACTOR, Scope.ADMIN: ADMIN})
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(tokens.hmac, "compare_digest", spy)
    book.scope_of(ACTOR)

    presented = hashlib.sha256(ACTOR.encode()).digest()
    known = {hashlib.sha256(token.encode()).digest() for token in (ACTOR, ADMIN)}
    assert {one for one, _ in compared} == {presented}
    assert {other for _, other in compared} == known


def test_one_token_for_both_scopes_is_refused() -> None:
    with pytest.raises(ConfigError, match="every actor could administrate"):
        TokenBook({Scope.ACTOR: ACTOR, Scope.ADMIN: ACTOR})


def test_book_holds_no_token() -> None:
    book = TokenBook({Scope.ACTOR: ACTOR})
    held: Any = vars(book)

    assert ACTOR not in repr(held)
