"""impala-admin: shows, steers and stops a running learner; `impala-admin certs` needs none.

Finds the admin service by the run's folder or by an address, and carries out one
row of the table in `impala_actor.admin.admin_commands`. Imports torch only for `evaluate`, which
plays episodes in this process. `certs ...` needs no learner; it is in
`impala_actor.admin.certs_command`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from impala_actor.admin.admin_client import AdminClient, find_address
from impala_actor.admin.admin_commands import COMMANDS, Command, Where
from impala_common.config.checks import require_time
from impala_common.errors import ImpalaError
from impala_common.process.exit_codes import INTERRUPTED, OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.standard_streams import prepare_standard_streams, reader_may_leave
from impala_common.rpc.security import ClientSecurity

_DESCRIPTION = """Looks at, steers and stops a running learner. Options may stand before and after
the command. The learner is found by --run, by --address, or as the only one below runs/.

`clients` and `drain-clients` ask a policy server: the one beside that learner, or at --address.

Without a learner: `impala-admin certs init DIR` makes certificates and tokens
(impala-admin certs --help).

Exit codes: 0 done; 2 wrong arguments, or the learner refused them (out of bounds, unknown or
taken name); 65 checkpoint damaged or not written; 69 no learner, or no answer in time; 75 not in
the learner's present state, or meant for another life of it; 77 token or certificate do not fit;
78 a file or address cannot be used."""


def _parse_run_id(words: list[str]) -> int:
    value = int(words[0], 16)  # tyro shows a ValueError as an error of the argument
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{words[0]} has more than 64 bits")
    return value


_RUN_ID = PrimitiveConstructorSpec(
    nargs=1,
    metavar="HEX",
    instance_from_str=_parse_run_id,
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=lambda value: [f"{value:x}"],
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of all commands."""

    run: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Folder of the run."""
    address: Annotated[str, tyro.conf.arg(metavar="A")] = ""
    """unix:PATH or HOST:PORT of the admin service."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the answer as one JSON object."""
    security: ClientSecurity = dataclasses.field(default_factory=ClientSecurity)
    """TLS and token."""
    timeout_s: Annotated[float, tyro.conf.arg(metavar="S")] = 150.0
    """Deadline of the call."""
    request_id: Annotated[str, tyro.conf.arg(metavar="ID")] = ""
    """Id of this change: the same id has one effect in ten minutes; empty: random."""
    expected_run_id: Annotated[int, _RUN_ID] = 0
    """learner_run_id, as status shows it, that the change is meant for; 0: any."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    code = OK
    with reader_may_leave():
        code = run(sys.argv[1:] if argv is None else argv)
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    show_version("impala-admin", argv)
    if argv and argv[0] == "certs":
        from impala_actor.admin.certs_command import run_certs

        return run_certs(argv[1:])
    try:
        options, command, arguments = parse(argv)
        require_time("--timeout-s", options.timeout_s)
        client = AdminClient(
            find_address(options.run, options.address, command.is_policy),
            options.security,
            options.timeout_s,
            options.request_id,
            options.expected_run_id,
        )
        with contextlib.closing(client):
            return command.carry_out(client, arguments, Where(options.run, options.json))
    except ImpalaError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def parse(argv: Sequence[str]) -> tuple[Options, Command, Any]:  # Any: the command's arguments
    """Returns the options, the command and its arguments.

    Raises:
      SystemExit: --help (code 0), or a command line that cannot be parsed (code 2).
    """
    kinds = {_arguments_of(command): command for command in COMMANDS}
    choices = tuple(
        Annotated[kind, tyro.conf.subcommand(one.name, description=one.text, prefix_name=False)]
        for kind, one in kinds.items()
    )
    line = dataclasses.make_dataclass(
        "CommandLine",
        [("general", Options), ("command", Union[choices])],  # noqa: UP007 (made at run time)
        frozen=True,
    )
    parsed: Any = tyro.cli(
        line,
        prog="impala-admin",
        args=list(argv),
        description=_DESCRIPTION,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.CascadeSubcommandArgs,
        ),
    )
    return parsed.general, kinds[type(parsed.command)], parsed.command


def _arguments_of(command: Command) -> type:
    """Returns a dataclass with a field for each argument of the command."""
    return dataclasses.make_dataclass(
        command.name.capitalize(),
        [
            (name, kind, dataclasses.field(default=default))
            for name, kind, default in command.arguments
        ],
        kw_only=True,
        frozen=True,
    )


if __name__ == "__main__":
    main()
