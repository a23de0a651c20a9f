"""Files and sockets that a command cannot make are named in one line; nothing hides why.

Written to find: an --address-file in a folder that is not there ended the policy server with a
traceback; a socket's bad path was taken for an address in use, which process managers try again.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from another_user import as_another_user, open_folder
from commands import Command
from run_folders import make_run_folder
from running_server import make_config

from impala_common.errors import AddressInUseError, ConfigError
from impala_common.process.exit_codes import CONFIG
from impala_conformance import cli as conformance_cli
from impala_conformance.kit import RefusedKitError
from impala_policy_server import policy_admin_plane
from impala_server.front_end.listener.credentials import bind

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--address-file", "no/x"], "error: --address-file is 'no/x' but must be a file that can"),
        (
            ["--admin-address", "unix:admin.sock", "--admin-address-file", "no/x"],
            "error: --admin-address-file is '",
        ),
        (["--admin-address", "unix:no/admin.sock"], "error: address is 'unix:"),
        (["--admin-address", "unix:file/admin.sock"], "error: --admin-address is '"),
    ],
)
def test_policy_server_names_the_file_it_cannot_make(
    tmp_path: Path, options: list[str], text: str
) -> None:
    make_run_folder(tmp_path / "run", "CartPole-v1")
    (tmp_path / "file").touch()
    options = ["--policy", "run", "--port", "0", *options]

    with Command(tmp_path, "impala-policy-server", *options) as command:
        assert command.wait() == CONFIG, command.err

    assert command.err.count("\n") == 1, command.err
    assert command.err.startswith(text)
    assert not (tmp_path / "admin.sock").exists()


def test_server_names_the_socket_it_cannot_make(tmp_path: Path) -> None:
    options = ["--host", f"unix:{tmp_path}/no/sock", "--run-dir", "run", "--quiet"]

    with Command(tmp_path, "impala-server", "--env", "CartPole-v1", *options) as command:
        assert command.wait() == CONFIG, command.err

    assert command.err.splitlines()[-1].startswith("error: address is 'unix:")
    assert "there is no folder" in command.err
    assert "Traceback" not in command.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x" * 200, "of at most 107 bytes in a folder to write to: it has "),
        ("no/sock", "there is no folder "),
        ("sock", " cannot be written to"),
    ],
)
def test_socket_in_a_bad_place_is_no_address_in_use(name: str, text: str) -> None:
    with open_folder() as folder, as_another_user():
        folder_is_closed = name == "sock"
        host = f"unix:{folder if folder_is_closed else '/tmp'}/{name}"
        with pytest.raises(ConfigError, match=text):
            bind(grpc.aio.server(), host, 0, make_config())


def test_stale_socket_of_another_user_is_named() -> None:
    with open_folder() as folder:
        closed = folder / "closed"
        closed.mkdir(0o700)
        with (
            as_another_user(),
            pytest.raises((ConfigError, AddressInUseError), match="Permission denied"),
        ):
            policy_admin_plane._remove_stale(closed / "sock")


@pytest.mark.parametrize("command", ["false", "/nowhere/stop", "kill 'x"])
def test_stop_command_that_fails_is_named(command: str) -> None:
    stop = conformance_cli._make_stop(command)

    assert stop is not None
    with pytest.raises(RefusedKitError, match=r"--stop-command .* failed: "):
        stop()
