"""The command lines of impala-admin: what each asks for, and which are mistakes."""

from pathlib import Path

import pytest

from impala_actor.admin.admin_commands import COMMANDS
from impala_actor.admin_cli import parse, run
from impala_common import health_cli
from impala_common.process import exit_codes

ASKED = {
    "status": ("GetStatus", {}),
    "parameters": ("ListParameters", {}),
    "checkpoints": ("ListCheckpoints", {}),
    "pause": ("Pause", {}),
    "resume": ("Resume", {}),
    "checkpoint": ("SaveCheckpoint", {"name": ""}),
    "checkpoint good": ("SaveCheckpoint", {"name": "good"}),
    "rollback good": ("Rollback", {"name": "good"}),
    "set learning_rate 1e-3": ("SetParameter", {"name": "learning_rate", "value": "1e-3"}),
    "set entropy_cost -1": ("SetParameter", {"name": "entropy_cost", "value": "-1"}),
    "evict a": ("EvictActor", {"actor_id": "a", "text": ""}),
    "evict set --text why": ("EvictActor", {"actor_id": "set", "text": "why"}),
    "ban a --text=--why": ("EvictActor", {"actor_id": "a", "text": "--why", "is_ban": True}),
    "unban a": ("UnbanActor", {"actor_id": "a"}),
    "drain": ("Drain", {}),
    "drain-clients": ("DrainClients", {}),
    "shutdown": ("Shutdown", {}),
    "logs debug": ("SetLogLevel", {"level": "LOG_LEVEL_DEBUG"}),
    "clear-best": ("ClearBest", {}),
    "profile 3": ("Profile", {"update_count": 3}),
}
OWN = {
    "actors": {"text": "", "connected": False, "rejected": False, "limit": 50},
    "actors --text rack-7 --connected --rejected --limit 0": {
        "text": "rack-7", "connected": True, "rejected": True, "limit": 0,
    },
    "clients": {},
    "watch": {"interval_s": 1.0, "count": 0},
    "watch --interval-s 0.5 --count 2": {"interval_s": 0.5, "count": 2},
    "evaluate": {"episodes": 100, "seed": 0, "env": "", "greedy": False},
    "evaluate --episodes 3 --seed 7 --env X-v0 --greedy": {
        "episodes": 3, "seed": 7, "env": "X-v0", "greedy": True,
    },
}  # fmt: skip
OPTIONS = (
    "--run R --json --token-file T --ca-file C --client-cert CC --client-key K "
    "--server-name S --timeout-s 3 --request-id I --expected-run-id ff"
)


def test_every_command_is_tried_here() -> None:
    assert {line.split()[0] for line in (*ASKED, *OWN)} == {one.name for one in COMMANDS}


@pytest.mark.parametrize("line", ASKED)
def test_command_line_makes_its_request(line: str) -> None:
    _, command, arguments = parse(line.split())

    fields = vars(arguments) if command.fields is None else command.fields(arguments)
    assert (command.method, fields) == ASKED[line]


@pytest.mark.parametrize("line", OWN)
def test_command_line_of_more_than_one_call(line: str) -> None:
    _, command, arguments = parse(line.split())

    assert command.run is not None
    assert vars(arguments) == OWN[line]


@pytest.mark.parametrize("form", ["{options} checkpoint x", "checkpoint x {options}"])
def test_options_stand_before_or_after_the_command(form: str) -> None:
    options, command, arguments = parse(form.format(options=OPTIONS).split())

    assert (command.name, arguments.name) == ("checkpoint", "x")
    assert (str(options.run), options.json, options.timeout_s) == ("R", True, 3.0)
    assert (options.request_id, options.expected_run_id) == ("I", 255)
    security = options.security
    assert (security.token_file, security.ca_file, security.server_name) == ("T", "C", "S")
    assert (security.client_cert, security.client_key) == ("CC", "K")


@pytest.mark.parametrize(
    "line",
    [
        "", "nothing", "rollback", "set learning_rate", "evict", "logs noisy", "profile x",
        "pause extra", "pause --request-id", "watch --count x", "pause --expected-run-id zz",
        "pause --expected-run-id 1ffffffffffffffff", "pause --no-such-option 1",
    ],
)  # fmt: skip
def test_mistake_on_the_command_line_ends_with_two(line: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(line.split())

    assert caught.value.code == exit_codes.USAGE


@pytest.mark.parametrize("line", ["--help", "set --help", "certs --help"])
def test_help_ends_with_zero(line: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(line.split())

    assert caught.value.code == exit_codes.OK


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("status --run /nowhere", "error: --run is '/nowhere' but must be the folder of a run"),
        ("status --address here", "error: --address is 'here' but must be HOST:PORT or unix:PATH"),
        ("status --timeout-s 0", "error: --timeout-s is 0.0 but must be greater than 0"),
        ("status --client-key k", "error: --client-cert is '' but must be given too"),
        ("status --server-name s", "error: --server-name is 's' but must be left out without"),
        ("status --timeout-s inf", "error: --timeout-s is inf but must be greater than 0 and at"),
        ("status --timeout-s 1e300", "error: --timeout-s is 1e+300 but must be greater than 0"),
        ("watch --interval-s nan", "error: --interval-s is nan but must be in [0, "),
        ("watch --interval-s inf", "error: --interval-s is inf but must be in [0, "),
        ("profile 9999999999", "error: update_count is 9999999999 but must be a value that"),
        ("evict \udcff", "error: actor_id is '\\udcff' but must be a value that a request holds"),
        ("pause --request-id \udcff", "error: --request-id is '\\udcff' but must be a value that"),
        ("status --address unix:\udcff", "error: --address is 'unix:\\udcff' but must be HOST:"),
        ("status --ca-file c --server-name \udcff", "error: --server-name is '\\udcff' but must"),
        (
            "status --run RUN",
            "error: --run is 'RUN' but must be the folder of a run with a learner",
        ),
    ],
)
def test_setting_that_cannot_work_is_one_error_line(
    line: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "admin_address").write_bytes(b"unix:\xff")
    more = "" if {"--run", "--address"} & set(line.split()) else f" --address unix:{tmp_path}/no"
    line, text = ((one).replace("RUN", str(tmp_path)) for one in (line + more, text))

    assert run(line.split()) == exit_codes.CONFIG

    error = capsys.readouterr().err
    assert error.startswith(text)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--timeout-s", "1e300"], ["--timeout-s", "nan"], ["--service", "\udcff"]]
)
def test_health_refuses_what_no_call_takes(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        health_cli.run(["--server", "unix:/nowhere", *options])

    assert caught.value.code == exit_codes.USAGE
