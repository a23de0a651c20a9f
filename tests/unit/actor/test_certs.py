"""impala-admin certs init: its files fit together, and it overwrites nothing."""

from __future__ import annotations

import datetime
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from impala_actor.admin import certs_command as certs
from impala_actor.admin_cli import run
from impala_common.errors import ConfigError
from impala_common.process import exit_codes
from impala_common.rpc.certificate_facts import names_of
from impala_common.rpc.tokens import read_token

FILES = {
    "ca.crt",
    "ca.key",
    "server.crt",
    "server.key",
    "client.crt",
    "client.key",
    "actor.token",
    "evaluator.token",
    "admin.token",
}
ROOT = Path(__file__).resolve().parents[3]
SECRETS = "deploy/kubernetes/base/secrets"


def _tracked(folder: str) -> list[str]:
    """Returns what git has of a folder: what a fresh clone has there."""
    command = ["git", "ls-files", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "certs"
    names = ["learner.example.org", "10.0.0.5"]
    assert run(["certs", "init", str(folder), "--name", names[0], "--name", names[1]]) == 0
    return folder


def test_init_makes_all_files_readable_by_their_owner_only(made: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()}

    assert modes == dict.fromkeys(FILES, 0o600)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert [path.name for path in made.parent.iterdir()] == ["certs"]


def test_init_tells_the_commands_and_no_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "certs"
    assert run(["certs", "init", str(folder), "--name", "learner.example.org"]) == exit_codes.OK

    printed = capsys.readouterr().out
    assert "impala-server --host 0.0.0.0" in printed
    assert "impala-actor --server learner.example.org:50051" in printed
    for name in ("actor.token", "evaluator.token", "admin.token"):
        assert read_token("x", str(folder / name)) not in printed


def test_init_makes_certificates_for_the_names_and_this_machine(made: Path) -> None:
    server = x509.load_pem_x509_certificate((made / "server.crt").read_bytes())
    ca = x509.load_pem_x509_certificate((made / "ca.crt").read_bytes())

    names = ["learner.example.org", "localhost", "10.0.0.5", "127.0.0.1", "::1"]
    assert names_of(server) == names
    server.verify_directly_issued_by(ca)
    left = server.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=364) < left <= datetime.timedelta(days=365)


def test_init_makes_pairs_that_strict_verification_accepts(made: Path) -> None:
    """Keys fit certificates, and both chains are accepted by RFC 5280 to the letter."""
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=made / "ca.crt")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made / "ca.crt")
    for context, name in ((client, "client"), (server, "server")):
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.load_cert_chain(made / f"{name}.crt", made / f"{name}.key")
    server.verify_mode = ssl.CERT_REQUIRED
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(ways[0], ways[1], server_hostname="learner.example.org")
    right = server.wrap_bio(ways[1], ways[0], server_side=True)

    for _ in range(4):
        for end in (left, right):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue

    assert left.getpeercert()
    assert right.getpeercert()


def test_init_makes_three_tokens(made: Path) -> None:
    names = ("actor.token", "evaluator.token", "admin.token")
    tokens = {read_token("x", str(made / name)) for name in names}

    assert len(tokens) == 3


def test_init_overwrites_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in made.iterdir()}

    assert run(["certs", "init", str(made)]) == exit_codes.CONFIG

    assert "nothing is ever overwritten" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


def test_init_fills_an_empty_folder(tmp_path: Path) -> None:
    """Such as the mount point of a volume."""
    certs.make_certificates(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_init_fills_the_folder_of_secrets_that_every_clone_has(tmp_path: Path) -> None:
    """The first command of every overlay. Before: refused, as the folder holds a .gitignore."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in _tracked(SECRETS):
        shutil.copy(ROOT / name, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {".gitignore"}

    assert run(["certs", "init", str(folder), "--name", "learner"]) == exit_codes.OK

    assert {path.name for path in folder.iterdir()} == FILES | {".gitignore"}
    assert (folder / ".gitignore").read_bytes() == before[".gitignore"]
    assert run(["certs", "init", str(folder), "--name", "learner"]) == exit_codes.CONFIG


@pytest.mark.parametrize(
    "name", ["", "a:80", "https://a", "a b", "a/b", "ä", "a" * 64, "-a", "a\n"]
)
def test_init_refuses_what_is_no_name_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a DNS name or an IP address"):
        certs.make_certificates(tmp_path / "certs", [name])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", ["0", "-1", "36501"])
def test_init_refuses_a_validity_out_of_bounds(tmp_path: Path, days: str) -> None:
    code = run(["certs", "init", str(tmp_path / "certs"), "--days", days])

    assert code == exit_codes.CONFIG
    assert list(tmp_path.iterdir()) == []


def test_init_where_nobody_may_write_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    assert run(["certs", "init", str(tmp_path / "file" / "certs")]) == exit_codes.CONFIG

    assert "a folder that can be made" in capsys.readouterr().err
