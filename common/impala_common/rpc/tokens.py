"""Tokens: secrets in files that authenticate calls.

Read by servers and clients when they start. A token itself never appears in a command line, a log
line or an error; digests are compared, in constant time. The file of a token decides its scope: one
file for actors, one for evaluators, one for administration.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping

from impala_common.errors import ConfigError

NUM_TOKEN_BYTES = 32
"""Random bytes of a new token, and the fewest that are accepted."""

_MAX_FILE_BYTES = 1024
_TOKEN = re.compile(rb"[0-9A-Fa-f]{%d,512}" % (2 * NUM_TOKEN_BYTES))


class Scope(enum.Enum):
    """Permission of a token."""

    ACTOR = "actor"
    EVALUATOR = "evaluator"
    ADMIN = "admin"


_MAY = {
    Scope.ACTOR: "send experience",
    Scope.EVALUATOR: "report evaluations",
    Scope.ADMIN: "administrate",
}


def make_token() -> str:
    """Returns a new token: 32 random bytes as hexadecimal digits."""
    return secrets.token_hex(NUM_TOKEN_BYTES)


def read_secret_file(name: str, path: str) -> bytes:
    """Returns the content of a file that only its owner may read.

    Requires mode 0600 or 0400. On a read-only mount any mode without write permission for others is
    accepted: containers get secrets that way, often as root's with mode 0444, and have no other
    users.

    Raises:
      ConfigError: it cannot be read, or others can read or write it; `name` is the setting.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            is_read_only = bool(os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY)
            content = file.read(1 << 20)
    except OSError as error:
        raise ConfigError(name, path, "a readable file", str(error.strerror)) from None
    forbidden = 0o022 if is_read_only else 0o077
    if not stat.S_ISREG(mode) or mode & forbidden:
        raise ConfigError(
            name,
            path,
            "a file that only its owner can read (mode 0600 or 0400)",
            f"its mode is {stat.S_IMODE(mode):04o}; chmod 600 {path}",
        )
    return content


def read_token(name: str, path: str) -> str:
    """Returns the token in a file; `name` is the setting that names it.

    Raises:
      ConfigError: as `read_secret_file`, or the content is not a token.
    """
    content = read_secret_file(name, path)
    token = content.strip()
    if len(content) > _MAX_FILE_BYTES or not _TOKEN.fullmatch(token):
        raise ConfigError(
            name,
            path,
            f"a file of one token: at least {2 * NUM_TOKEN_BYTES} hexadecimal digits",
            f"make one with: (umask 077; openssl rand -hex {NUM_TOKEN_BYTES} > {path})",
        )
    return token.decode("ascii")


class TokenBook:
    """Tokens by scope; holds digests only. Immutable."""

    def __init__(self, tokens: Mapping[Scope, str]) -> None:
        """Stores the digests of `tokens`.

        Raises:
          ConfigError: two scopes have the same token, so an actor could administrate, for
            example.
        """
        self._digests = {scope: _digest(token) for scope, token in tokens.items()}
        seen: dict[bytes, Scope] = {}
        for scope, digest in self._digests.items():
            if digest in seen:
                first = seen[digest].value
                raise ConfigError(
                    f"{scope.value}_token_file",
                    f"the same token as {first}_token_file",
                    "another token",
                    f"every {first} could {_MAY[scope]}",
                )
            seen[digest] = scope

    @property
    def scopes(self) -> frozenset[Scope]:
        """The scopes that have a token."""
        return frozenset(self._digests)

    def scope_of(self, presented: str) -> Scope | None:
        """Returns the scope of a presented token, in constant time."""
        digest, found = _digest(presented), None
        for scope, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = scope
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
