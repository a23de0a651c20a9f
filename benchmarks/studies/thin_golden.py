"""Do thin actors learn as ordinary ones do? `python -m benchmarks.studies.thin_golden`.

Each seed is trained twice to the same number of steps with the preset of the environment: by
ordinary actors, and by thin actors of as many slots behind one policy server. Frozen weights are
judged by impala-eval. docs/results/NAME.json is written after each run; a run that is in the
file, with the same options, is not made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.suite.machine import describe_machine, read_runs, save
from impala_common.run import metrics

Row = dict[str, Any]  # Any: JSON
Side = Literal["ordinary", "thin"]
_SIDES: tuple[Side, ...] = ("thin", "ordinary")
_KEPT = ("return_mean", "confidence_low", "confidence_high", "num_episodes", "return_min")
_START_S = 60.0
_END_S = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenArguments:
    """Trains one environment with thin and with ordinary actors."""

    env: str = "CartPole-v1"
    """Environment id."""
    total_steps: int = 100_000
    """Steps of each run."""
    seeds: tuple[int, int] = (100, 109)
    """First and last seed."""
    bar: float = 475.0
    """Mean return over the evaluation episodes that counts as reached."""
    num_actors: int = 2
    """Actors of each run, and thin actors."""
    slots: int = 4
    """Environment slots of each."""
    eval_episodes: int = 100
    """Episodes of each evaluation, with drawn actions."""
    run_timeout_s: float = 3600.0
    """Longest time of one run."""
    name: str = "thin_golden_cartpole"
    """Name of the result file."""


def main() -> None:
    """Trains what is not in the result file yet."""
    arguments = tyro.cli(GoldenArguments, prog="python -m benchmarks.studies.thin_golden")
    runs: list[Row] = read_runs(arguments.name)
    options = _options(arguments)
    for seed in range(arguments.seeds[0], arguments.seeds[1] + 1):
        for side in _SIDES:
            known = (
                run["seed"] == seed and run["actors"] == side and run["options"] == options
                for run in runs
            )
            if any(known):
                continue
            runs.append(_train(arguments, side, seed, options))
            _save(arguments, runs)
            print(_describe(runs[-1]), flush=True)
    for side in _SIDES:
        means = [run["return_mean"] for run in runs if run["actors"] == side]
        reached = sum(mean >= arguments.bar for mean in means)
        print(f"{side}: {reached} of {len(means)} seeds reach {arguments.bar:g}")


def _options(arguments: GoldenArguments) -> list[str]:
    """Returns the options of impala-server that are the same for all runs."""
    return [
        *["--env", arguments.env, "--total-steps", str(arguments.total_steps)],
        *["--num-actors", str(arguments.num_actors), "--envs-per-actor", str(arguments.slots)],
    ]


def _train(arguments: GoldenArguments, side: Side, seed: int, options: list[str]) -> Row:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        run = Path(folder) / "run"
        command = ["impala-server", *options, "--seed", str(seed), "--port", "0", "--quiet"]
        start_s = time.monotonic()
        server = stack.enter_context(_started([*command, "--run-dir", str(run)]))
        address = _wait_for_file(run / "address", server)
        envs = ["--env", arguments.env]
        if side == "thin":
            file = Path(folder) / "policy_address"
            command = ["impala-policy-server", "--learner", address, "--port", "0"]
            stack.enter_context(_started([*command, "--address-file", str(file)]))
            address = _wait_for_file(file, server)
        clients = []
        for index in range(arguments.num_actors):
            if side == "thin":
                first_seed = 1_000_003 * seed + index * arguments.slots  # one for each slot
                slots = ["--slots", str(arguments.slots), "--seed", str(first_seed)]
                command = ["impala-thin-actor", "--server", address, *envs, *slots]
            else:
                slots = ["--num-envs", str(arguments.slots)]
                command = ["impala-actor", "--server", address, *envs, *slots]
            clients.append(stack.enter_context(_started(command)))
        _wait_for_end(server, clients, arguments.run_timeout_s)
        if server.returncode:
            raise SystemExit(f"{side} seed {seed}: impala-server ended with {server.returncode}")
        wall_time_s = time.monotonic() - start_s
        lines = metrics.read_metrics(run / "metrics.jsonl")
        judge = ["--episodes", str(arguments.eval_episodes), "--json"]
        done = subprocess.run(
            [_find("impala-eval"), str(run), *judge], capture_output=True, text=True, check=True
        )
        evaluation = json.loads(done.stdout.splitlines()[-1])
    lags = [line[metrics.POLICY_LAG_MEAN] for line in lines if metrics.POLICY_LAG_MEAN in line]
    return {
        "actors": side,
        "seed": seed,
        "steps": max(line[metrics.STEPS] for line in lines if metrics.STEPS in line),
        **{name: round(evaluation[name], 3) for name in _KEPT},
        "policy_lag_mean": round(sum(lags) / len(lags), 2) if lags else 0.0,
        "wall_time_s": round(wall_time_s, 1),
        "options": options,
        **{name: describe_machine()[name] for name in ("processor", "commit")},
    }


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this project; ended at the end of the context, if it has not ended itself."""
    process = subprocess.Popen([_find(command[0]), *command[1:]], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        try:
            process.wait(_END_S if sys.exc_info()[0] is None else 0.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_end(
    server: subprocess.Popen[bytes], clients: list[subprocess.Popen[bytes]], timeout_s: float
) -> None:
    """Waits until the server has ended.

    Raises:
      SystemExit: it takes too long, or all actors have failed.
    """
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            server.wait(1.0)
        except subprocess.TimeoutExpired:
            if time.monotonic() > end_s:
                raise SystemExit(f"a run takes longer than {timeout_s:g} s") from None
            codes = [client.poll() for client in clients]
            if all(codes):
                raise SystemExit(f"no actor is left: they ended with {codes}") from None
        else:
            return


def _wait_for_file(path: Path, server: subprocess.Popen[bytes]) -> str:
    end_s = time.monotonic() + _START_S
    while not path.exists():
        if server.poll() is not None or time.monotonic() > end_s:
            raise SystemExit(f"no {path.name} within {_START_S:g} s")
        time.sleep(0.05)
    return path.read_text().strip()


def _find(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


def _save(arguments: GoldenArguments, runs: list[Row]) -> None:
    command = shlex.join(["python", "-m", "benchmarks.studies.thin_golden", *sys.argv[1:]])
    reached = {
        side: sum(run["return_mean"] >= arguments.bar for run in runs if run["actors"] == side)
        for side in _SIDES
    }
    save(
        arguments.name,
        {
            "command": command,
            "env": arguments.env,
            "bar": arguments.bar,
            "reached": reached,
            "runs": runs,
        },
    )


def _describe(run: Row) -> str:
    interval = f"{run['confidence_low']:.1f} to {run['confidence_high']:.1f}"
    return (
        f"{run['actors']:<8} seed {run['seed']} {run['steps']:>9,} steps return "
        f"{run['return_mean']:.1f} ({interval}) lag {run['policy_lag_mean']:.1f} "
        f"{run['wall_time_s']:.0f} s"
    )


if __name__ == "__main__":
    main()
