"""impala-thin-actor: plays a Gymnasium environment against a policy server."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence

from impala_rl.standard_streams import leave, prepare_standard_streams
from impala_thin.environment import Environment
from impala_thin.errors import (
    EnvironmentFailedError,
    RefusedError,
    RunFinishedError,
    ServerUnavailableError,
    StoppedError,
    ThinError,
)
from impala_thin.hello import ClientSettings
from impala_thin.server_address import require_address
from impala_thin.slots_client import SlotsClient

_CODES: dict[type[ThinError], int] = {
    RunFinishedError: 0,
    ServerUnavailableError: 69,
    EnvironmentFailedError: 75,  # another start may go better, as of impala-actor
    RefusedError: 78,
}


_BOUNDS = (
    ("slots", 1, 1 << 20),
    ("episodes", 0, sys.maxsize),
    ("frame_stack", 0, 1024),
    ("seed", 0, sys.maxsize),
)
"""Options that are whole numbers, with their smallest and largest values."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    leave(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        _on_signals(_raise_stopped)
        _play(arguments)
    except StoppedError:
        return 0
    except ThinError as error:
        print(f"error: {error}", file=sys.stderr)
        return next((code for kind, code in _CODES.items() if isinstance(error, kind)), 1)
    except ImportError as error:
        print(
            f"error: --env cannot be made here: {error}. Gymnasium is an extra: pip install "
            "'impala-rl-thin[gymnasium]'; modules of your own are looked for where Python looks, "
            f"then in {os.getcwd()}",
            file=sys.stderr,
        )
        return 78
    return 0


def _on_signals(stop: Callable[[], None]) -> None:
    """Calls `stop`, on the main thread, at the first SIGINT or SIGTERM; a second one kills."""

    def handle(*unused: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _raise_stopped() -> None:
    raise StoppedError("asked to stop before the first step")


def _find_version() -> str:
    """Returns the version of the distribution that holds this package."""
    try:
        return importlib.metadata.version("impala-rl-thin")
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("impala-rl")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="impala-thin-actor",
        description="Plays a Gymnasium environment against a policy server (impala-policy-server). "
        "Ends with 0 when the run has finished or on SIGTERM or Ctrl-C, 69 when the server cannot "
        "be reached in time, 75 when the environment raises, 78 when it refuses this client.",
    )
    add = parser.add_argument
    add("--version", action="version", version=f"impala-thin-actor {_find_version()}")
    add("--server", required=True, help="policy server, HOST:PORT or unix:PATH")
    add("--env", required=True, help="environment id, such as CartPole-v1 or module:MyEnv-v0")
    add("--env-kwargs", default="{}", help="arguments for the environment, a JSON object")
    add(
        "--env-wrapper",
        nargs="+",
        default=[],
        help="wrappers around each slot's environment, module:Wrapper, the first innermost",
    )
    add("--slots", type=int, default=1, help="environment slots (default: 1)")
    add(
        "--frame-stack",
        type=int,
        default=None,
        help="observations that the server stacks (default: 4 for Atari, else none)",
    )
    add("--client-id", default="", help="name of this client, unique at its server")
    add("--ca-file", default="", help="CA of the server's certificate (PEM); default: no TLS")
    add("--token-file", default="", help="file of the token; default: none is sent")
    add("--client-cert", default="", help="certificate to show the server (PEM, mutual TLS)")
    add("--client-key", default="", help="its private key (PEM)")
    add("--server-name", default="", help="name the server's certificate is for")
    add("--connect-timeout-s", type=float, default=0.0, help="0: wait for the server for ever")
    add("--no-compress", action="store_true", help="send observations as they are")
    add("--evaluation", action="store_true", help="only play: nothing is trained")
    add("--greedy", action="store_true", help="take the likeliest actions; with --evaluation")
    add("--episodes", type=int, default=0, help="end after so many episodes; 0: never")
    add("--seed", type=int, default=None, help="of the environment")
    return parser


def _play(arguments: argparse.Namespace) -> None:
    from impala_thin.atari import FRAME_STACK, find_atari_game
    from impala_thin.gymnasium_driver import gives_mask, make_vector, play_vector

    for name, low, high in _BOUNDS:
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            option = "--" + name.replace("_", "-")
            raise RefusedError(f"{option} is {value} but must be in [{low}, {high}]")
    if not 0.0 <= arguments.connect_timeout_s < math.inf:
        given = arguments.connect_timeout_s
        raise RefusedError(f"--connect-timeout-s is {given:g} but must be a number of at least 0")
    require_address(arguments.server)
    try:
        env_kwargs = dict(json.loads(arguments.env_kwargs))
    except (TypeError, ValueError) as error:
        text = f"--env-kwargs is {arguments.env_kwargs!r} but must be a JSON object: {error}"
        raise RefusedError(text) from None
    try:
        vector_env = make_vector(arguments.env, arguments.slots, env_kwargs, arguments.env_wrapper)
    except (ImportError, ThinError):
        raise
    except Exception as error:  # whatever an environment's own code raises
        text = f"--env {arguments.env} cannot be made here: {type(error).__name__}: {error}"
        raise RefusedError(" ".join(text.split())) from None
    frame_stack = arguments.frame_stack
    if frame_stack is None:
        is_atari = find_atari_game(arguments.env) is not None
        frame_stack = FRAME_STACK if is_atari else 0
    environment = Environment.from_spaces(
        vector_env.single_observation_space,
        vector_env.single_action_space,
        frame_stack,
        has_mask=gives_mask(vector_env),
        image_layout=(vector_env.metadata or {}).get("image_layout"),
    )
    settings = ClientSettings(
        server=arguments.server,
        client_id=arguments.client_id,
        ca_file=arguments.ca_file,
        token_file=arguments.token_file,
        client_cert=arguments.client_cert,
        client_key=arguments.client_key,
        server_name=arguments.server_name,
        connect_timeout_s=arguments.connect_timeout_s,
        is_evaluation=arguments.evaluation or arguments.greedy,
        is_greedy=arguments.greedy,
        compresses=not arguments.no_compress,
    )
    with SlotsClient(environment, arguments.slots, settings=settings) as client:
        _on_signals(client.stop)
        played = play_vector(
            vector_env, client, num_episodes=arguments.episodes, seed=arguments.seed
        )
    try:
        vector_env.close()
    except Exception as error:  # all has been played by then
        print(
            f"warning: close() of the environment raised {type(error).__name__}: {error}",
            file=sys.stderr,
        )
    text = f"played {played.num_steps} steps, {len(played.returns)} episodes"
    if played.returns:
        mean = sum(played.returns) / len(played.returns)
        text += f", mean return {mean:{'.4g' if abs(mean) < 1.0 else ',.1f'}}"
    print(text)
