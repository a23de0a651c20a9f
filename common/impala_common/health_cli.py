"""impala-health: reports whether a learner server or an actor is healthy, for containers.

Exits with 0 or 1 and prints the reason in one line. Checks a learner with the standard gRPC health
call, an actor by its heartbeat file. Imports neither torch nor any other slow module: with
argparse instead of tyro a check takes a quarter of the CPU time, and containers check every few
seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from impala_common.errors import ImpalaError
from impala_common.process.exit_codes import exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import write_line
from impala_common.process.standard_streams import prepare_standard_streams, reader_may_leave
from impala_common.process.utf8 import is_utf8
from impala_common.rpc.addresses import require_server_address
from impala_common.rpc.limits import LONGEST_S

_DESCRIPTION = "Exits with 0 if a learner server or an actor is well, else with 1."


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    code = 0
    with reader_may_leave():
        code = run(sys.argv[1:] if argv is None else argv)
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    show_version("impala-health", argv)
    arguments = _parse(argv)
    try:
        if arguments.server is not None:
            require_server_address("--server", arguments.server)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    if arguments.actor_file is not None:
        is_well, text = check_actor(arguments.actor_file, arguments.max_age_s)
    else:
        is_well, text = check_server(arguments)
    (sys.stdout if is_well else sys.stderr).write(text + "\n")
    return 0 if is_well else 1


def check_actor(path: Path, max_age_s: float) -> tuple[bool, str]:
    """Returns whether the heartbeat in `path` is recent, and a line about it."""
    from impala_common.process.heartbeat import read_age_s

    try:
        age_s = read_age_s(path)
    except FileNotFoundError:
        return False, f"not well: there is no {path}; does the actor have --heartbeat-file?"
    except (OSError, ValueError) as error:
        return False, f"not well: {path} holds no heartbeat: {error}"
    if age_s > max_age_s:
        return False, f"not well: the actor has not moved for {age_s:.1f} s (max {max_age_s:g})"
    return True, f"well: the actor moved {age_s:.1f} s ago"


def check_server(arguments: argparse.Namespace) -> tuple[bool, str]:
    """Returns whether the server answers SERVING, and a line about it."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from impala_common.process.logs import printable
    from impala_common.rpc.proxies import describe_proxy, proxy_options
    from impala_common.rpc.security import ClientSecurity

    server, name = arguments.server, arguments.service or "the server"
    try:
        security = ClientSecurity(
            ca_file=arguments.ca_file,
            token_file=arguments.token_file,
            client_cert=arguments.client_cert,
            client_key=arguments.client_key,
            server_name=arguments.server_name,
        )
        credentials = security.make_credentials(server)
    except ImpalaError as error:
        return False, f"not well: {error}"
    options = security.options() + proxy_options(server)
    channel = (
        grpc.insecure_channel(server, options=options)
        if credentials is None
        else grpc.secure_channel(server, credentials, options=options)
    )
    with channel:
        request = health_pb2.HealthCheckRequest(service=arguments.service)
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(
                request, timeout=arguments.timeout_s
            )
        except grpc.RpcError as error:
            code, text = error.code(), printable(error.details() or "")
            way = describe_proxy(server)
            return False, f"not well: {server} did not answer{way}: {code.name}: {text}"
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    is_well = response.status == health_pb2.HealthCheckResponse.SERVING
    return is_well, f"{'well' if is_well else 'not well'}: {name} at {server} is {status}"


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("impala-health", description=_DESCRIPTION)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--server", metavar="ADDRESS", help="learner: HOST:PORT or unix:PATH")
    which.add_argument(
        "--actor-file", type=Path, metavar="PATH", help="actor: its --heartbeat-file"
    )
    parser.add_argument(
        "--service",
        type=_utf8,
        default="",
        metavar="NAME",
        help="what to ask for: empty (all of it), impala_rl.v1.LearnerService, learning, which "
        "serves only once actors' unrolls are taken, or alive, which serves until the learner "
        "hangs, also while it drains",
    )
    parser.add_argument("--timeout-s", type=_seconds, default=3.0, metavar="S", help="default 3")
    parser.add_argument(
        "--max-age-s", type=_seconds, default=60.0, metavar="S", help="actor: default 60"
    )
    for option, text in (
        ("--ca-file", "CA the server's certificate must come from: use TLS"),
        ("--token-file", "token to send; the health call needs none"),
        ("--client-cert", "certificate to show the server (mutual TLS)"),
        ("--client-key", "its key"),
        ("--server-name", "name the server's certificate must have"),
    ):
        parser.add_argument(option, default="", metavar="TEXT", help=text)
    return parser.parse_args(argv)


def _utf8(text: str) -> str:
    if not is_utf8(text):
        raise ValueError(text)
    return text


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= LONGEST_S:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    main()
