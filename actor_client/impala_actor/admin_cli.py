"""impala-admin: what a person asks of a running learner, and `impala-admin certs`.

Finds the admin service by the run's folder or by an address, makes one call and
shows its answer, as JSON where asked. Never imports torch, but for `evaluate`,
which plays episodes in this process. `certs ...` needs no learner and belongs
to `impala_actor.admin.certs_command`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from impala_actor.admin.admin_client import AdminClient, find_address, to_json
from impala_actor.admin.admin_display import (
    Dashboard,
    describe_status,
    render_actors,
    render_checkpoints,
    render_parameters,
    render_status,
)
from impala_common.config.checks import require
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process.exit_codes import INTERRUPTED, OK, exit_code_of
from impala_common.rpc.security import ClientSecurity
from impala_common.run.run_directory import RunDirectory

_WIDTH = 120  # of tables that go into a file or pipe
_LEVELS = ("debug", "info", "warning", "error")

_EPILOG = """commands without a learner:
  certs init DIR      make certificates and tokens (impala-admin certs --help)

The learner is found by --run, by --address, or as the only one below runs/.

exit codes: 0 done; 2 wrong arguments, or the learner refused them (out of bounds, unknown or
taken name); 65 checkpoint damaged or not written; 69 no learner, or no answer in time; 75 not in
the learner's present state, or meant for another life of it; 77 token or certificate do not fit;
78 a file or address cannot be used."""

_COMMANDS: dict[str, str] = {
    "status": "one screen: state, progress, queue, actors, bottleneck",
    "watch": "the same, live",
    "actors": "table of actors",
    "parameters": "table of parameters that can be set, with bounds",
    "checkpoints": "table of checkpoints",
    "pause": "stop updates; actors wait",
    "resume": "go on with updates",
    "checkpoint": "write a checkpoint; answers when it is durable",
    "rollback": "go back to a checkpoint",
    "set": "set a parameter from the next update on",
    "evict": "end an actor's session; it may come back",
    "ban": "end an actor's session and keep it out",
    "unban": "let a banned actor come back",
    "drain": "take no more unrolls, train on what is there, write a checkpoint",
    "shutdown": "end the learner in order, as SIGTERM does",
    "evaluate": "write a checkpoint and play episodes with it in this process",
    "logs": "set the level of the server's logs",
    "clear-best": "set the best checkpoint aside, where its evaluation was false",
    "profile": "record N updates with torch's profiler into the run",
}
"""What each command does, by name."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    if argv and argv[0] == "certs":
        from impala_actor.admin.certs_command import run_certs

        return run_certs(argv[1:])
    arguments = _make_parser().parse_args(argv)
    try:
        return _run(arguments)
    except ImpalaError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    security = ClientSecurity(
        ca_file=arguments.ca_file,
        token_file=arguments.token_file,
        client_cert=arguments.client_cert,
        client_key=arguments.client_key,
        server_name=arguments.server_name,
    )
    require("--timeout-s", arguments.timeout_s, arguments.timeout_s > 0, "greater than 0")
    client = AdminClient(
        find_address(arguments.run, arguments.address),
        security,
        arguments.timeout_s,
        arguments.request_id,
        arguments.expected_run_id,
    )
    with contextlib.closing(client):
        if arguments.command == "watch":
            return _watch(client, arguments)
        if arguments.command == "evaluate":
            return _evaluate(client, arguments)
        method, fields, show = _CALLS[arguments.command](arguments)
        answer = to_json(client.call(method, **fields))
        if arguments.json:
            sys.stdout.write(json.dumps(answer) + "\n")
        else:
            shown = show(answer)
            if isinstance(shown, str):
                sys.stdout.write(shown + "\n")
            else:
                _console().print(shown)
    return OK


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


_Show = Callable[[dict[str, Any]], RenderableType]
_Call = tuple[str, dict[str, Any], _Show]

_CALLS: dict[str, Callable[[argparse.Namespace], _Call]] = {
    "status": lambda _: ("GetStatus", {}, lambda answer: render_status(answer["status"])),
    "actors": lambda _: ("ListActors", {}, render_actors),
    "parameters": lambda _: ("ListParameters", {}, render_parameters),
    "checkpoints": lambda _: ("ListCheckpoints", {}, render_checkpoints),
    "pause": lambda _: ("Pause", {}, _show_state),
    "resume": lambda _: ("Resume", {}, _show_state),
    "checkpoint": lambda a: ("SaveCheckpoint", {"name": a.name}, _show_checkpoint),
    "rollback": lambda a: ("Rollback", {"name": a.name}, _show_rollback),
    "set": lambda a: ("SetParameter", {"name": a.name, "value": a.value}, _show_parameter),
    "evict": lambda a: (
        "EvictActor",
        {"actor_id": a.actor, "text": a.text},
        lambda answer: f"{a.actor} sent away{_was(answer)}",
    ),
    "ban": lambda a: (
        "EvictActor",
        {"actor_id": a.actor, "text": a.text, "is_ban": True},
        lambda answer: f"{a.actor} banned{_was(answer)}",
    ),
    "unban": lambda a: ("UnbanActor", {"actor_id": a.actor}, lambda _: f"{a.actor} may come back"),
    "drain": lambda _: (
        "Drain",
        {},
        lambda answer: f"DRAINING: everything trained is in {answer['checkpoint']}",
    ),
    "shutdown": lambda _: ("Shutdown", {}, lambda _: "the learner is ending"),
    "logs": lambda a: (
        "SetLogLevel",
        {"level": f"LOG_LEVEL_{a.level.upper()}"},
        lambda answer: f"log level {a.level}, was {answer['level_before'].lower()}",
    ),
    "clear-best": lambda _: (
        "ClearBest",
        {},
        lambda answer: f"best, of return {answer['return_mean']:g}, is {answer['name']} now",
    ),
    "profile": lambda a: (
        "Profile",
        {"update_count": a.updates},
        lambda answer: (
            f"{answer['path']} ({answer['total_bytes']:,} bytes): open it with "
            "https://ui.perfetto.dev"
        ),
    ),
}
"""By command: the method, its request's fields, and how its answer is shown."""


def _was(answer: dict[str, Any]) -> str:
    return "" if answer["was_connected"] else " (it was not connected)"


def _show_state(answer: dict[str, Any]) -> str:
    learner = answer["learner"]
    steps, version = learner["trained_steps"], learner["policy_version"]
    return f"{answer['state']} at step {steps:,}, version {version:,}"


def _show_checkpoint(answer: dict[str, Any]) -> str:
    one = answer["checkpoint"]
    news = "durable" if answer["is_new"] else "nothing new since"
    return f"{one['name']} at step {one['trained_steps']:,}: {news}"


def _show_rollback(answer: dict[str, Any]) -> str:
    learner = answer["learner"]
    return (
        f"step {answer['trained_steps_before']:,} -> {learner['trained_steps']:,}, weights "
        f"published as version {learner['policy_version']:,}, saved as {answer['saved_as']}"
    )


def _show_parameter(answer: dict[str, Any]) -> str:
    one = answer["parameter"]
    return (
        f"{one['name']} {answer['value_before']} -> {one['value']} at step "
        f"{answer['trained_steps']:,} (configured: {one['configured_value']})"
    )


def _watch(client: AdminClient, arguments: argparse.Namespace) -> int:
    """Shows the status until the learner ends, Ctrl-C, or --count answers."""
    require("--count", arguments.count, arguments.count >= 0, "at least 0")
    dashboard, console = Dashboard(), _console()
    is_live = console.is_terminal and not arguments.json
    live = Live(console=console, auto_refresh=False) if is_live else None
    with live or contextlib.nullcontext(), contextlib.suppress(KeyboardInterrupt):
        for number, message in enumerate(client.watch(arguments.interval_s), 1):
            status = to_json(message)
            if live is not None:
                dashboard.update(status)
                live.update(dashboard.render(), refresh=True)
            else:
                text = json.dumps(status) if arguments.json else describe_status(status)
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
            if status["state"] == "STOPPED" or number == arguments.count:
                break
    return OK


def _evaluate(client: AdminClient, arguments: argparse.Namespace) -> int:
    """Saves a checkpoint through the learner and plays it here, from the run's folder."""
    status = to_json(client.call("GetStatus"))["status"]
    run = RunDirectory(arguments.run or Path(status["run_path"]))
    if not run.config_path.is_file():
        raise ConfigError(
            "--run",
            str(run.path),
            "a folder this machine can read",
            "evaluation reads the run's checkpoints; use it where the learner runs",
        )
    saved = to_json(client.call("SaveCheckpoint"))["checkpoint"]["name"]
    from impala_actor import eval_cli  # imports torch once its arguments have been found good

    command = [str(run.path), "--checkpoint", saved, "--episodes", str(arguments.episodes)]
    command += ["--seed", str(arguments.seed)]
    command += ["--env", arguments.env] if arguments.env else []
    command += ["--greedy"] if arguments.greedy else []
    command += ["--json"] if arguments.json else []
    return eval_cli.main(command)


def _make_parser() -> argparse.ArgumentParser:
    options = _make_options(has_defaults=False)
    parser = argparse.ArgumentParser(
        prog="impala-admin",
        description="Looks at, steers and stops a running learner.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_make_options(has_defaults=True)],
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    by_name = {
        name: commands.add_parser(name, help=text, description=text, parents=[options])
        for name, text in _COMMANDS.items()
    }
    by_name["watch"].add_argument("--interval-s", type=float, default=1.0, help="(default: 1)")
    by_name["watch"].add_argument("--count", type=int, default=0, help="answers; 0: until the end")
    by_name["checkpoint"].add_argument(
        "name", nargs="?", default="", help="a named one is never removed (default: by step)"
    )
    by_name["rollback"].add_argument("name", help="as `checkpoints` lists it")
    by_name["set"].add_argument("name", help="as `parameters` lists it")
    by_name["set"].add_argument("value", help="a number, or none")
    for name in ("evict", "ban", "unban"):
        by_name[name].add_argument("actor", help="as `actors` lists it")
        if name != "unban":
            by_name[name].add_argument("--text", default="", help="why, for the actor's log")
    by_name["evaluate"].add_argument("--episodes", type=int, default=100, help="(default: 100)")
    by_name["evaluate"].add_argument("--seed", type=int, default=0, help="(default: 0)")
    by_name["evaluate"].add_argument("--env", default="", help="(default: the run's)")
    by_name["evaluate"].add_argument(
        "--greedy", action="store_true", help="take the most probable action"
    )
    by_name["logs"].add_argument("level", choices=_LEVELS)
    by_name["profile"].add_argument("updates", type=int, metavar="N", help="1 to 100")
    return parser


def _make_options(has_defaults: bool) -> argparse.ArgumentParser:
    """Returns the options of all commands; they may stand before and after the command."""
    options = argparse.ArgumentParser(add_help=False)

    def add(name: str, default: Any, text: str, **more: Any) -> None:  # Any: argparse's
        chosen = default if has_defaults else argparse.SUPPRESS
        options.add_argument(name, default=chosen, help=text, **more)

    add("--run", None, "folder of the run", type=Path, metavar="RUN")
    add("--address", "", "unix:PATH or HOST:PORT of the admin service", metavar="A")
    add("--json", False, "print the answer as one JSON object", action="store_true")
    add("--token-file", "", "file of the admin token", metavar="FILE")
    add("--ca-file", "", "CA of the learner's certificate (TLS)", metavar="FILE")
    add("--client-cert", "", "certificate to show the learner", metavar="FILE")
    add("--client-key", "", "its private key", metavar="FILE")
    add("--server-name", "", "name the learner's certificate is for", metavar="NAME")
    add("--timeout-s", 150.0, "deadline of the call (default: 150)", type=float, metavar="S")
    add(
        "--request-id",
        "",
        "id of this change: the same id has one effect in ten minutes (default: random)",
        metavar="ID",
    )
    add(
        "--expected-run-id",
        0,
        "learner_run_id, as status shows it, that the change is meant for (default: any)",
        type=_parse_run_id,
        metavar="HEX",
    )
    return options


def _parse_run_id(text: str) -> int:
    value = int(text, 16)  # argparse makes a ValueError its own message
    if not 0 <= value < 1 << 64:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    main()
