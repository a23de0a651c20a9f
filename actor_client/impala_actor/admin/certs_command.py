"""`impala-admin certs init DIR`: writes a CA, certificates and tokens for a new learner.

A CA, certificates for a server and for a client, and three tokens, in files only
their owner can read. Needs no learner. Called by impala-admin's command line.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from impala_actor.admin.certificate_authority import CertificateAuthority
from impala_common.config.checks import require
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.rpc.tokens import make_token

_ALWAYS = ("localhost", "127.0.0.1", "::1")
CA_CERT, CA_KEY = "ca.crt", "ca.key"
SERVER_CERT, SERVER_KEY = "server.crt", "server.key"
CLIENT_CERT, CLIENT_KEY = "client.crt", "client.key"
ACTOR_TOKEN, EVALUATOR_TOKEN, ADMIN_TOKEN = "actor.token", "evaluator.token", "admin.token"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitArguments:
    """Makes a CA, certificates for a server and for a client, and three tokens in a new folder."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder to make, mode 0700, or an empty one (a .gitignore does not count); its files are 0600.
    Nothing that exists is overwritten."""
    name: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """DNS name or IP address by which actors reach the learner; may be repeated. localhost and
    127.0.0.1 are always among them."""
    days: int = 365
    """Days the certificates are valid."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require("--days", self.days, 1 <= self.days <= 36500, "in [1, 36500]")


def run_certs(argv: Sequence[str]) -> int:
    """Runs `impala-admin certs ARGV...`; returns its exit code."""
    try:
        arguments = tyro.extras.subcommand_cli_from_dict(
            {"init": InitArguments},
            prog="impala-admin certs",
            description="Certificates and tokens for learners that other machines can reach.",
            args=list(argv),
        )
        make_certificates(arguments.folder, arguments.name, arguments.days)
    except ImpalaError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code_of(error)
    sys.stdout.write(_explain(arguments))
    return OK


def make_certificates(folder: Path, names: Sequence[str] = (), days: int = 365) -> None:
    """Fills a new folder, or leaves none if that fails.

    Raises:
      ConfigError: it holds more than a .gitignore, cannot be made, or a name is invalid.
    """
    authority = CertificateAuthority(days)
    server = authority.issue_server(list(dict.fromkeys((*names, *_ALWAYS))))
    client = authority.issue_client("impala-actor")
    files = {
        CA_CERT: authority.pair.certificate,
        CA_KEY: authority.pair.key,
        SERVER_CERT: server.certificate,
        SERVER_KEY: server.key,
        CLIENT_CERT: client.certificate,
        CLIENT_KEY: client.key,
        ACTOR_TOKEN: make_token().encode() + b"\n",
        EVALUATOR_TOKEN: make_token().encode() + b"\n",
        ADMIN_TOKEN: make_token().encode() + b"\n",
    }
    try:
        _write_all(folder, files)
    except OSError as error:
        raise ConfigError("DIR", str(folder), "a folder that can be made", str(error)) from None


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    if folder.exists() and (not folder.is_dir() or _holds_something(folder)):
        raise ConfigError(
            "DIR",
            str(folder),
            "a new folder or one that is empty but for a .gitignore",
            "nothing is ever overwritten",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():  # a mounted volume, or one with a .gitignore: fill it, not replace it
        _write_files(folder, files)
        return
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # 0700
    try:
        _write_files(temporary, files)
        temporary.rename(folder)  # fails if another process made the folder meanwhile
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _holds_something(folder: Path) -> bool:
    """Whether anything but a .gitignore, which keeps what is made here out of git, is there."""
    return any(entry.name != ".gitignore" for entry in folder.iterdir())


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _explain(arguments: InitArguments) -> str:
    folder = arguments.folder
    names = dict.fromkeys((*arguments.name, *_ALWAYS))
    host = arguments.name[0] if arguments.name else "localhost"
    return f"""\
{folder} holds a CA, certificates for {", ".join(names)} and three tokens,
valid for {arguments.days} days. On the learner's machine:

  impala-server --host 0.0.0.0 --env ID --tls-cert {folder}/{SERVER_CERT} \\
    --tls-key {folder}/{SERVER_KEY} --actor-token-file {folder}/{ACTOR_TOKEN} \\
    --evaluator-token-file {folder}/{EVALUATOR_TOKEN}

On each actor's machine, once {CA_CERT} and {ACTOR_TOKEN} are copied there (mode 0600):

  impala-actor --server {host}:50051 --env ID --ca-file {CA_CERT} --token-file {ACTOR_TOKEN}

An impala-evaluator gets {EVALUATOR_TOKEN} in the place of {ACTOR_TOKEN}. {CA_KEY} makes further
certificates, {ADMIN_TOKEN} administrates: neither is for an actor's machine.
"""
