"""impala-conformance: plays the contract against a server or a client, and prints a table."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf import json_format

from impala_conformance.connection import Connection
from impala_conformance.environment import make_default_environment
from impala_conformance.kit import (
    NotReadyError,
    RefusedKitError,
    find_rules,
    play_client,
    play_learner,
    play_policy_server,
)
from impala_conformance.report import print_table, to_json
from impala_conformance.rule import Result
from impala_rl.standard_streams import prepare_standard_streams, reader_may_leave
from impala_rl.v1 import spec_pb2

_PASSED, _FAILED, _UNREACHABLE, _BAD_CONFIGURATION = 0, 1, 69, 78
_STOP_S = 60.0
_OF_SERVERS = (
    "disposable",
    "environment",
    "stop_command",
    "ca_file",
    "client_cert",
    "client_key",
    "server_name",
)
_ADDRESS = re.compile(
    r"unix:.+|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9._-]*):[0-9]{1,5}", re.ASCII
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    options, command = _split_command(argv)
    arguments = _parser().parse_args(options)
    arguments.command = command
    try:
        results = _play(arguments)
    except NotReadyError as error:
        print(f"error: {error}", file=sys.stderr)
        return _UNREACHABLE
    except (RefusedKitError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _BAD_CONFIGURATION
    side, address = _side_of(arguments)
    with reader_may_leave():
        if arguments.json:
            print(to_json(results, address, side))
        else:
            title = f"{side} at {address}" if side != "client" else f"client {address}"
            print_table(results, title)
    return _FAILED if any(result.outcome == "failed" for result in results) else _PASSED


def _play(arguments: argparse.Namespace) -> list[Result]:
    side, address = _side_of(arguments)
    if (side == "client") != bool(arguments.command):
        raise RefusedKitError("the command of a client comes with --client, after --")
    if side == "client":
        _require_no_server(arguments)
        return play_client(
            arguments.command,
            find_rules(side, arguments.rules),
            patience_s=arguments.patience_s,
            connect_timeout_s=arguments.connect_timeout_s,
            token_file=arguments.token_file,
        )
    if not _ADDRESS.fullmatch(address):
        raise RefusedKitError(
            f"the server is {address!r} but must be HOST:PORT, [IPV6]:PORT or unix:PATH"
        )
    connection = Connection(
        address=address,
        ca_file=arguments.ca_file,
        token_file=arguments.token_file,
        client_cert=arguments.client_cert,
        client_key=arguments.client_key,
        server_name=arguments.server_name,
    )
    if side == "learner" and not arguments.disposable:
        raise RefusedKitError(
            "--learner sends made-up unrolls, which the run is trained on: give --disposable with "
            "a run that nobody needs"
        )
    environment, rules = _read_environment(arguments.environment), find_rules(side, arguments.rules)
    stop = _make_stop(arguments.stop_command)
    if side == "learner":
        return play_learner(
            connection,
            environment,
            rules,
            patience_s=arguments.patience_s,
            connect_timeout_s=arguments.connect_timeout_s,
            stop=stop,
        )
    return play_policy_server(
        connection,
        environment,
        rules,
        patience_s=arguments.patience_s,
        connect_timeout_s=arguments.connect_timeout_s,
        is_disposable=arguments.disposable,
        stop=stop,
    )


def _split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns what stands before and after the first `--`."""
    place = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:place]), list(argv[place + 1 :])


def _require_no_server(arguments: argparse.Namespace) -> None:
    """Raises RefusedKitError if an option was given that is about servers alone."""
    for name in _OF_SERVERS:
        if getattr(arguments, name):
            raise RefusedKitError(f"--{name.replace('_', '-')}: expected without --client")


def _side_of(arguments: argparse.Namespace) -> tuple[str, str]:
    if arguments.client:
        return "client", shlex.join(arguments.command)
    if arguments.policy_server:
        return "policy server", arguments.policy_server
    return "learner", arguments.learner


def _read_environment(path: str) -> spec_pb2.EnvironmentSpec:
    if not path:
        return make_default_environment()
    try:
        return json_format.Parse(Path(path).read_text("utf-8"), spec_pb2.EnvironmentSpec())
    except json_format.ParseError as error:
        raise RefusedKitError(f"--environment {path}: no EnvironmentSpec: {error}") from error


def _make_stop(command: str) -> Callable[[], None] | None:
    if not command:
        return None

    def stop() -> None:
        try:
            subprocess.run(shlex.split(command), check=True, timeout=_STOP_S)  # noqa: S603 (the user's)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            raise RefusedKitError(f"--stop-command {command!r} failed: {error}") from error

    return stop


def _find_version() -> str:
    """Returns the version of the distribution that holds this package."""
    try:
        return importlib.metadata.version("impala-rl-thin")
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("impala-rl")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="impala-conformance",
        usage="%(prog)s (--policy-server ADDR | --learner ADDR) [OPTIONS]\n"
        "       %(prog)s --client [OPTIONS] -- COMMAND {address} ...",
        description="Plays the contract of policy.proto or learner.proto against a running server, "
        "or against a client that it starts, and prints which rules hold. Ends with 0 when none is "
        "violated, 1 when one is, 69 when the server cannot be reached or the client does not come "
        "in time, 78 when the server refuses the kit (environment, token, TLS) or a setting cannot "
        "work.",
    )
    add = parser.add_argument
    add("--version", action="version", version=f"impala-conformance {_find_version()}")
    sides = parser.add_mutually_exclusive_group(required=True)
    sides.add_argument(
        "--policy-server", default="", help="a policy server, HOST:PORT or unix:PATH"
    )
    sides.add_argument("--learner", default="", help="a learner; needs --disposable")
    sides.add_argument(
        "--client",
        action="store_true",
        help="a client of a policy server: its command follows after --, with {address} in it, and "
        "is run once for most rules",
    )
    add(
        "--disposable",
        action="store_true",
        help="the run is there for this only: play trained slots, and fill the server up",
    )
    add(
        "--environment",
        default="",
        help="EnvironmentSpec of the run in protobuf's JSON form; default: that of CartPole-v1",
    )
    add("--rules", default="", help="only these, separated by commas")
    add(
        "--patience-s",
        type=float,
        default=10.0,
        help="time for the next answer, or step of a client",
    )
    add(
        "--connect-timeout-s",
        type=float,
        default=30.0,
        help="time to wait for the server or client",
    )
    add(
        "--stop-command",
        default="",
        help="command that makes the server stop in order, such as 'kill PID': tries drain",
    )
    add("--ca-file", default="", help="CA of the server's certificate (PEM); default: no TLS")
    add(
        "--token-file",
        default="",
        help="file of the token; with --client that which the command sends",
    )
    add("--client-cert", default="", help="certificate to show (PEM, mutual TLS)")
    add("--client-key", default="", help="its private key (PEM)")
    add("--server-name", default="", help="name the server's certificate is for")
    add("--json", action="store_true", help="print one JSON object in place of the table")
    return parser
