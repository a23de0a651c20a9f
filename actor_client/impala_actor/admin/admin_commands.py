"""The commands of `impala-admin`: one table, one row each.

A row names the method of the admin service, the command's arguments, the request's
fields made of them, and how the answer is shown. `watch` and `evaluate` do more
than one call, so that their rows name a function. A new command is a new row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console, RenderableType
from rich.live import Live

from impala_actor.admin.admin_client import AdminClient, to_json
from impala_actor.admin.admin_display import (
    Dashboard,
    describe_status,
    render_actors,
    render_checkpoints,
    render_clients,
    render_parameters,
    render_status,
)
from impala_actor.result_console import ResultConsole
from impala_common.config.checks import require, require_between
from impala_common.errors import ConfigError
from impala_common.process.exit_codes import OK
from impala_common.process.terminals import can_show_live
from impala_common.rpc.limits import LONGEST_S
from impala_common.run.run_directory import RunDirectory, reading

_MAX_PAGES = 1000  # of clients: no answer keeps this command for ever
_PAGE = 1000  # actors of one answer
_MAX_ACTORS = 1 << 20
_WIDTH = 120  # of tables that go into a file or pipe

Json = dict[str, Any]
"""An answer of the learner."""

Arguments = Any
"""A dataclass instance with a field for each of a command's arguments."""

Argument = tuple[str, Any, Any]
"""Name, annotated type and default (dataclasses.MISSING: none) of an argument."""


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """General options that `watch` and `evaluate` read.

    Attributes:
      run: folder of the run, or None.
      is_json: whether answers are printed as JSON.
    """

    run: Path | None
    is_json: bool


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      name: as it is typed.
      text: what it does, for --help.
      method: of the admin service; empty with `run`.
      show: returns what is printed of the answer.
      arguments: its own, positional ones first.
      fields: returns the request's fields; None: the arguments by their names.
      run: does everything and returns the exit code, in place of one call.
      is_policy: whether it is for a policy server, not for a learner.
    """

    name: str
    text: str
    method: str = ""
    show: Callable[[Json, Arguments], RenderableType] = lambda unused_answer, _: "done"
    arguments: tuple[Argument, ...] = ()
    fields: Callable[[Arguments], Json] | None = None
    run: Callable[[AdminClient, Arguments, Where], int] | None = None
    is_policy: bool = False

    def carry_out(self, client: AdminClient, arguments: Arguments, where: Where) -> int:
        """Carries the command out, prints its answer and returns the exit code.

        Raises:
          ImpalaError: what the learner refused it with, or that none answers.
        """
        if self.run is not None:
            return self.run(client, arguments, where)
        fields = vars(arguments) if self.fields is None else self.fields(arguments)
        answer = to_json(client.call(self.method, **fields))
        if where.is_json:
            _print_line(json.dumps(answer))
            return OK
        shown = self.show(answer, arguments)
        if isinstance(shown, str):
            _print_line(shown)
        else:
            _make_console().print(shown)
        return OK


def _positional(name: str, text: str, kind: Any = str, default: Any = dataclasses.MISSING,
                metavar: str = "") -> Argument:  # fmt: skip
    """Returns an argument that has no option name."""
    marks = tyro.conf.arg(help=text, metavar=metavar or name.upper())
    return name, Annotated[kind, tyro.conf.Positional, marks], default


def _option(name: str, text: str, kind: Any, default: Any) -> Argument:
    """Returns an argument that is an option, --name."""
    return name, Annotated[kind, tyro.conf.arg(help=text)], default


def _show_state(answer: Json, _: Arguments) -> str:
    learner = answer["learner"]
    steps, version = learner["trained_steps"], learner["policy_version"]
    return f"{answer['state']} at step {steps:,}, version {version:,}"


def _show_checkpoint(answer: Json, _: Arguments) -> str:
    one = answer["checkpoint"]
    news = "durable" if answer["is_new"] else "nothing new since"
    return f"{one['name']} at step {one['trained_steps']:,}: {news}"


def _show_rollback(answer: Json, _: Arguments) -> str:
    learner = answer["learner"]
    return (
        f"step {answer['trained_steps_before']:,} -> {learner['trained_steps']:,}, weights "
        f"published as version {learner['policy_version']:,}, saved as {answer['saved_as']}"
    )


def _show_parameter(answer: Json, _: Arguments) -> str:
    one = answer["parameter"]
    return (
        f"{one['name']} {answer['value_before']} -> {one['value']} at step "
        f"{answer['trained_steps']:,} (configured: {one['configured_value']})"
    )


def _show_profile(answer: Json, _: Arguments) -> str:
    size = f"{answer['total_bytes']:,} bytes"
    return f"{answer['path']} ({size}): open it with https://ui.perfetto.dev"


def _show_cleared(answer: Json, _: Arguments) -> str:
    return f"best, of mean return {answer['return_mean']:g}, is now called {answer['name']}"


def _show_eviction(answer: Json, arguments: Arguments, what: str) -> str:
    was = "" if answer["was_connected"] else " (it was not connected)"
    return f"{arguments.actor} {what}{was}"


def _watch(client: AdminClient, arguments: Arguments, where: Where) -> int:
    """Shows the status until the learner ends, on Ctrl-C, or after --count answers."""
    require("--count", arguments.count, arguments.count >= 0, "at least 0")
    require_between("--interval-s", arguments.interval_s, 0, LONGEST_S)
    dashboard, console = Dashboard(), _make_console()
    is_live = can_show_live(console) and not where.is_json
    live = Live(console=console, auto_refresh=False) if is_live else None
    with live or contextlib.nullcontext(), contextlib.suppress(KeyboardInterrupt):
        for number, message in enumerate(client.watch(arguments.interval_s), 1):
            status = to_json(message)
            if live is not None:
                dashboard.update(status)
                live.update(dashboard.render(), refresh=True)
            else:
                _print_line(json.dumps(status) if where.is_json else describe_status(status))
                sys.stdout.flush()
            if status["state"] == "STOPPED" or number == arguments.count:
                break
    return OK


def _actors(client: AdminClient, arguments: Arguments, where: Where) -> int:
    """Shows actors that the options let through, and what all of them do together."""
    require("--limit", arguments.limit, arguments.limit >= 0, "at least 0")
    limit = arguments.limit or _MAX_ACTORS
    fields: Json = {"text": arguments.text, "is_connected": arguments.connected}
    fields["is_rejected"] = arguments.rejected
    answer: Json = {"actors": [], "next_page_token": ""}
    while True:
        size = min(_PAGE, limit - len(answer["actors"]))
        fields |= {"page_size": size, "page_token": answer["next_page_token"]}
        page = to_json(client.call("ListActors", **fields))
        # A learner older than pages sends all actors at once, and no totals.
        answer = page | {"actors": (answer["actors"] + page["actors"])[:limit]}
        if not page["next_page_token"] or len(answer["actors"]) >= limit:
            break
    if where.is_json:
        _print_line(json.dumps(answer))
    else:
        _make_console().print(render_actors(answer))
    return OK


def _clients(client: AdminClient, _: Arguments, where: Where) -> int:
    """Shows the clients of a policy server, all pages of them as one table."""
    answer: Json = {"clients": [], "next_page_token": ""}
    for _page in range(_MAX_PAGES):
        page = to_json(client.call("ListClients", page_token=answer["next_page_token"]))
        answer = page | {"clients": answer["clients"] + page["clients"]}
        if not page["next_page_token"]:
            break
    if where.is_json:
        _print_line(json.dumps(answer))
    else:
        _make_console().print(render_clients(answer))
    return OK


def _evaluate(client: AdminClient, arguments: Arguments, where: Where) -> int:
    """Saves a checkpoint through the learner and plays it here, from the run's folder."""
    status = to_json(client.call("GetStatus"))["status"]
    run = RunDirectory(where.run or Path(status["run_path"]))
    with reading("--run", run.path, "a folder this machine can read"):
        is_run = run.config_path.is_file()
    if not is_run:
        raise ConfigError(
            "--run",
            str(run.path),
            "a folder this machine can read",
            "evaluation reads the run's checkpoints; use it where the learner runs",
        )
    saved = to_json(client.call("SaveCheckpoint"))["checkpoint"]["name"]
    from impala_actor import eval_cli  # imports torch after its arguments are checked

    command = [str(run.path), "--checkpoint", saved, "--episodes", str(arguments.episodes)]
    command += ["--seed", str(arguments.seed)]
    command += ["--env", arguments.env] if arguments.env else []
    command += ["--greedy"] if arguments.greedy else []
    command += ["--json"] if where.is_json else []
    return eval_cli.main(command)


def _print_line(text: str) -> None:
    sys.stdout.write(text + "\n")


def _make_console() -> Console:
    return ResultConsole() if sys.stdout.isatty() else ResultConsole(width=_WIDTH)


_ACTOR = _positional("actor", "as `actors` lists it")
_WHY = _option("text", "why, for the actor's log", str, "")
_LEVEL = _positional("level", "lowest that is logged", Literal["debug", "info", "warning", "error"],
                     metavar="{debug,info,warning,error}")  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    Command("status", "one screen: state, progress, queue, actors, bottleneck", "GetStatus",
            lambda answer, _: render_status(answer["status"])),
    Command("watch", "the same, live", run=_watch, arguments=(
        _option("interval_s", "between two answers", float, 1.0),
        _option("count", "answers; 0: until the end", int, 0))),
    Command("actors", "table of actors, and their totals", run=_actors, arguments=(
        _option("text", "only those whose name or host has this text in it", str, ""),
        _option("connected", "only those that are connected", tyro.conf.FlagCreatePairsOff[bool],
                False),
        _option("rejected", "only those of whose unrolls some were refused",
                tyro.conf.FlagCreatePairsOff[bool], False),
        _option("limit", "most rows of the table; 0: all", int, 50))),
    Command("parameters", "table of parameters that can be set, with bounds", "ListParameters",
            lambda answer, _: render_parameters(answer)),
    Command("checkpoints", "table of checkpoints", "ListCheckpoints",
            lambda answer, _: render_checkpoints(answer)),
    Command("pause", "stop updates; actors wait", "Pause", _show_state),
    Command("resume", "go on with updates", "Resume", _show_state),
    Command("checkpoint", "write a checkpoint; answers when it is durable", "SaveCheckpoint",
            _show_checkpoint, (_positional("name", "a named one is never removed", default=""),)),
    Command("rollback", "go back to a checkpoint", "Rollback", _show_rollback,
            (_positional("name", "as `checkpoints` lists it"),)),
    Command("set", "set a parameter from the next update on", "SetParameter", _show_parameter,
            (_positional("name", "as `parameters` lists it"),
             _positional("value", "a number, or none"))),
    Command("evict", "end an actor's session; it may come back", "EvictActor",
            lambda answer, a: _show_eviction(answer, a, "sent away"), (_ACTOR, _WHY),
            lambda a: {"actor_id": a.actor, "text": a.text}),
    Command("ban", "end an actor's session and keep it out", "EvictActor",
            lambda answer, a: _show_eviction(answer, a, "banned"), (_ACTOR, _WHY),
            lambda a: {"actor_id": a.actor, "text": a.text, "is_ban": True}),
    Command("unban", "let a banned actor come back", "UnbanActor",
            lambda _, a: f"{a.actor} may come back", (_ACTOR,), lambda a: {"actor_id": a.actor}),
    Command("clients", "table of a policy server's thin clients", run=_clients, is_policy=True),
    Command("drain-clients", "end a policy server in order, as SIGTERM does", "DrainClients",
            lambda answer, _: f"{answer['connected_client_count']} clients are told to stop",
            (), lambda _: {}, is_policy=True),
    Command("drain", "take no more unrolls, train on what is there, write a checkpoint", "Drain",
            lambda answer, _: f"DRAINING: everything trained is in {answer['checkpoint']}"),
    Command("shutdown", "end the learner in order, as SIGTERM does", "Shutdown",
            lambda unused_answer, _: "the learner is ending"),
    Command("evaluate", "write a checkpoint and play episodes with it in this process",
            run=_evaluate, arguments=(
        _option("episodes", "at least so many are played", int, 100),
        _option("seed", "of environments and actions", int, 0),
        _option("env", "environment id; empty: the run's", str, ""),
        _option("greedy", "take the most probable action",
                tyro.conf.FlagCreatePairsOff[bool], False))),
    Command("logs", "set the level of the server's logs", "SetLogLevel",
            lambda answer, a: f"log level {a.level}, was {answer['level_before'].lower()}",
            (_LEVEL,), lambda a: {"level": f"LOG_LEVEL_{a.level.upper()}"}),
    Command("clear-best", "set the best checkpoint aside, where its evaluation was false",
            "ClearBest", _show_cleared),
    Command("profile", "record N updates with torch's profiler into the run", "Profile",
            _show_profile, (_positional("updates", "1 to 100", int, metavar="N"),),
            lambda a: {"update_count": a.updates}),
)  # fmt: skip
"""Every command that asks a server, in the order of --help."""
