"""What the whole system and its parts are measured on: environments, and settings beside them."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping

from impala_common.config import TrainConfig
from impala_common.config.cli import parse_train_config
from impala_server.local.tuning import choose_local_run, find_machine_facts

ENDLESS = ("--total-steps", "2000000000", "--eval-interval-steps", "0")
"""Options of a training that only ends when it is told to, and is not evaluated."""

ONE_PASS = (
    *("--passes", "1", "--parts", "1"),
    *("--surrogate-clip", "0", "--advantage-normalisation", "none"),
)
"""Options of IMPALA's one pass: steps/s of the system are compared with one update a batch."""
_MINATAR = (*ONE_PASS, "--unroll-length", "20", "--batch-size", "32", "--num-storages", "96")
_PONG = ("--preset", "atari_paper")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One environment with the settings that it is trained with.

    Attributes:
      name: in performance.json and targets.toml, a word.
      title: for people.
      env: environment id.
      options: of impala-train, beside the default settings.
      variables: environment variables of all its processes.
      is_variant: whether it differs from another only in how processes share the work, so that
        its parts are the other's.
    """

    name: str
    title: str
    env: str
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_variant: bool = False

    @property
    def process_variables(self) -> dict[str, str]:
        """All environment variables of its processes."""
        return {**os.environ, **self.variables}

    def make_config(self, *options: str) -> TrainConfig:
        """Returns the settings that impala-train would train with on this machine."""
        argv = ["--env", self.env, *ENDLESS, *self.options, *options]
        argv += ["--run-dir", tempfile.gettempdir()]  # never made: nothing is trained
        arguments = parse_train_config("impala-train", argv, "")
        return choose_local_run(arguments.config, arguments.named, find_machine_facts()).config


CASES = (
    Case(
        name="cartpole",
        title="CartPole-v1, two networks of 2x64",
        env="CartPole-v1",
        options=ONE_PASS,
    ),
    Case(
        name="cartpole_wide",
        title="CartPole-v1, the same networks, 64 slots",
        env="CartPole-v1",
        options=("--preset", "cartpole_wide"),
    ),
    Case(
        name="cartpole_two_actors",
        title="CartPole-v1, the same slots in two actors",
        env="CartPole-v1",
        options=(*ONE_PASS, "--num-actors", "2", "--envs-per-actor", "4"),
        is_variant=True,
    ),
    Case(
        name="minatar",
        title="MinAtar/Breakout-v1",
        env="MinAtar/Breakout-v1",
        options=(*_MINATAR, "--num-actors", "1", "--envs-per-actor", "32"),
    ),
    Case(
        name="minatar_two_actors",
        title="MinAtar/Breakout-v1, the same slots in two actors",
        env="MinAtar/Breakout-v1",
        options=(*_MINATAR, "--num-actors", "2", "--envs-per-actor", "16"),
        is_variant=True,
    ),
    Case(
        name="pong",
        title="ALE/Pong-v5, Nature CNN, T 20, B 32",
        env="ALE/Pong-v5",
        options=_PONG,
    ),
    Case(
        name="pong_two_actors",
        title="ALE/Pong-v5, the same slots in two actors",
        env="ALE/Pong-v5",
        options=(*_PONG, "--num-actors", "2", "--envs-per-actor", "16", "--env-threads", "1"),
        is_variant=True,
    ),
    Case(
        name="pong_fp32",
        title="ALE/Pong-v5 without AMX and bf16",
        env="ALE/Pong-v5",
        options=(*_PONG, "--precision", "float32", "--inference-backend", "eager"),
        # Nor may any library use these units.
        variables={"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    ),
)
"""In the order in which they are measured."""


def find_cases(names: Iterable[str]) -> tuple[Case, ...]:
    """Returns the cases of these names, all where there are none."""
    wanted = set(names)
    unknown = wanted - {case.name for case in CASES}
    if unknown:
        raise SystemExit(f"no such case: {', '.join(sorted(unknown))}")
    return tuple(case for case in CASES if not wanted or case.name in wanted)


def with_options(cases: tuple[Case, ...], options: tuple[str, ...]) -> tuple[Case, ...]:
    """Returns `cases`, each followed by itself with `options`, where there are any."""
    if not options:
        return cases
    words = " ".join(options)
    return tuple(
        variant
        for case in cases
        for variant in (
            case,
            dataclasses.replace(
                case,
                name=f"{case.name}_named",
                title=f"{case.title}, {words}",
                options=(*case.options, *options),
            ),
        )
    )
