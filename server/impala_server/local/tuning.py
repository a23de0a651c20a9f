"""Chooses actors, slots, threads and the evaluation interval that the user left open.

Starts from the preset, whose numbers were measured on two cores, and adapts them to the machine
before the run's folder is made, so that config.toml holds the choice and a resumed run keeps it. A
pure function of settings and MachineFacts.
Called by impala-train's main thread; no torch, no gymnasium: environments are known by id.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal, NamedTuple

from impala_common.config import TrainConfig
from impala_common.config.presets import preset_for_environment
from impala_common.spec.specs import EnvironmentSpec
from impala_server.local.message_fit import fit_to_messages

EnvironmentKind = Literal["light", "atari", "python"]
"""light: vectorised code, a step costs less than the calls around it; atari: emulators, about
300 us a step; python: environments that step one after the other, anything from 4 us up."""

TUNED_SETTINGS = ("num_actors", "envs_per_actor", "learner_threads", "env_threads")
"""Settings chosen here; a setting named by an option or a file is not changed."""

_PRESET_CORES = 2
_ACTOR_MIB = {"light": 250, "atari": 330, "python": 280}
_SERVER_MIB = 700
_LIGHT_PRESETS = frozenset({"cartpole", "cartpole_memory", "minatar"})
_MAX_ACTORS = 64
_NUM_EVALUATIONS = 25
_MIN_EVALUATION_STEPS = 25_000
_MIN_EVALUATED_RUN_STEPS = 150_000
_EVALUATION_EPISODES = 10
_EVALUATION_SHARE = 0.06
"""Of agent steps; on CartPole, whose learner is the cheapest, that is 2 % of CPU time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """Facts of the machine that the choice depends on.

    Attributes:
      num_cores: cores that this process may use, at least 1.
      free_mib: memory that is free for new processes; None: not known.
      has_gpu: whether the machine has a CUDA device.
    """

    num_cores: int
    free_mib: int | None = None
    has_gpu: bool = False


class LocalChoice(NamedTuple):
    """The choice.

    Attributes:
      config: the settings with the choice.
      text: one line with the choice and its reason; empty if all settings were named.
    """

    config: TrainConfig
    text: str


def find_machine_facts(cgroup_path: Path = Path("/sys/fs/cgroup")) -> MachineFacts:
    """Returns the facts of this machine, within the limits of this process's container."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _read_words(cgroup_path / "cpu.max")
    if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal():
        num_cores = min(num_cores or 1, -(-int(quota[0]) // int(quota[1])))
    return MachineFacts(
        num_cores=max(1, num_cores or 1),
        free_mib=_find_free_mib(cgroup_path),
        has_gpu=Path("/dev/nvidiactl").exists(),
    )


def choose_local_run(
    config: TrainConfig,
    named: frozenset[str],
    facts: MachineFacts,
    seen: EnvironmentSpec | None = None,
) -> LocalChoice:
    """Returns `config` with actors, slots and threads that fit the machine.

    The total number of slots is the preset's: learning depends on it and on the age of the data.
    The number of actors grows with the cores only if a step costs more in the environment than in
    the learner.

    Args:
      config: the settings, from preset, file and options.
      named: settings that a file or an option names, by field; they stay.
      facts: of the machine.
      seen: specification of the environment; None: not known.
    """
    if config.job.lockstep:
        return LocalChoice(config, "")
    config = _choose_evaluation(config, named)
    if named.issuperset(TUNED_SETTINGS):
        return LocalChoice(fit_to_messages(config, named, seen), "")
    kind = find_environment_kind(config)
    uses_gpu = facts.has_gpu and config.job.device != "cpu"
    num_actors, num_slots = config.job.num_actors, config.environment.envs_per_actor
    if "num_actors" not in named and num_actors:
        wanted = _count_actors(kind, config, facts.num_cores, uses_gpu)
        chosen = _limit_by_memory(wanted, kind, facts.free_mib)
        if chosen < num_actors and "envs_per_actor" not in named:
            # The same total of slots in fewer processes: larger batches of inference.
            num_slots = -(-num_actors * num_slots // chosen)
        num_actors = max(chosen, config.ranks.learner_ranks)  # each rank needs one at least
    num_threads = config.job.learner_threads
    if "learner_threads" not in named and not num_threads:
        num_threads = 1 if uses_gpu else _count_learner_threads(kind, config, facts, num_actors)
    env_threads = config.job.env_threads
    if "env_threads" not in named and not env_threads:
        env_threads = _count_env_threads(kind, num_actors, facts.num_cores)
    job = dataclasses.replace(
        config.job,
        num_actors=num_actors,
        learner_threads=num_threads,
        env_threads=env_threads,
    )
    environment = dataclasses.replace(config.environment, envs_per_actor=num_slots)
    chosen_config = dataclasses.replace(config, job=job, environment=environment)
    chosen_config = fit_to_messages(chosen_config, named, seen)
    return LocalChoice(chosen_config, _describe(chosen_config, kind, facts))


def estimate_memory_mib(config: TrainConfig) -> float:
    """Returns the memory of a local run's processes in MiB, without rollout storage."""
    per_actor = _ACTOR_MIB[find_environment_kind(config)]
    num_evaluators = 1 if config.evaluation.eval_interval_steps else 0
    return _SERVER_MIB + per_actor * (config.job.num_actors + num_evaluators)


def find_environment_kind(config: TrainConfig) -> EnvironmentKind:
    """Returns the kind of the environment, by its id and backend."""
    preset = preset_for_environment(config.environment.env)
    backend = config.environment.env_backend
    is_changed = config.environment.changes_single_environments
    if backend == "ale" or (preset == "atari" and backend in ("auto", "envpool")):
        return "atari"
    if backend == "envpool" or (preset in _LIGHT_PRESETS and backend in ("auto", "entry-point")):
        return "python" if is_changed else "light"
    return "python"


def _choose_evaluation(config: TrainConfig, named: frozenset[str]) -> TrainConfig:
    """Returns `config` with evaluation during training, unless its interval is named.

    At most 25 times a run, with few episodes: enough for `best` to hold a good policy that training
    loses later, at little cost.
    """
    evaluation = config.evaluation
    if "eval_interval_steps" in named or evaluation.eval_interval_steps:
        return config
    total_steps = config.job.total_steps
    if total_steps < _MIN_EVALUATED_RUN_STEPS:
        return config  # the run takes seconds, less than the evaluator's start
    interval = max(_MIN_EVALUATION_STEPS, total_steps // _NUM_EVALUATIONS)
    num_episodes = evaluation.eval_interval_episodes
    if "eval_interval_episodes" not in named:
        num_episodes = min(num_episodes, _EVALUATION_EPISODES)
    share = evaluation.eval_max_share
    if "eval_max_share" not in named:
        share = share or _EVALUATION_SHARE
    evaluation = dataclasses.replace(
        evaluation,
        eval_interval_steps=interval,
        eval_interval_episodes=num_episodes,
        eval_max_share=share,
    )
    return dataclasses.replace(config, evaluation=evaluation)


def _count_actors(
    kind: EnvironmentKind, config: TrainConfig, num_cores: int, uses_gpu: bool
) -> int:
    """Returns the best number of actors, without regard to memory.

    On a CPU each pass of the learner over a step costs about as much as environment and inference
    together.
    """
    num_actors, passes = config.job.num_actors, config.reuse.passes
    if kind == "light" or num_cores == 1:
        return 1
    if num_cores <= _PRESET_CORES:
        # One actor has half the lag of two, and with several passes the learner needs a core of its
        # own.
        return 1 if kind == "atari" or passes > 1 else num_actors
    for_actors = num_cores - 1 if uses_gpu else max(1, num_cores // (1 + passes))
    return min(max(num_actors, for_actors), _MAX_ACTORS)


def _count_learner_threads(
    kind: EnvironmentKind, config: TrainConfig, facts: MachineFacts, num_actors: int
) -> int:
    """Returns the number of threads of a learner on a CPU.

    With several passes over large images actors wait for it most of the time, so it takes their
    cores too. Passes of small networks are overhead, which threads do not share.
    """
    if config.reuse.passes == 1:
        return max(1, facts.num_cores - num_actors)
    return facts.num_cores if kind == "atari" else 1


def _count_env_threads(kind: EnvironmentKind, num_actors: int, num_cores: int) -> int:
    """Returns the number of threads that step the slots of one actor; only emulators use several.

    On few cores they may use all cores: while the policy computes, the learner uses them.
    """
    if kind != "atari" or num_cores > _PRESET_CORES:
        return 1
    return max(1, num_cores // num_actors)


def _limit_by_memory(num_actors: int, kind: EnvironmentKind, free_mib: int | None) -> int:
    if free_mib is None:
        return num_actors
    return max(1, min(num_actors, (free_mib - _SERVER_MIB) // _ACTOR_MIB[kind]))


def _describe(config: TrainConfig, kind: EnvironmentKind, facts: MachineFacts) -> str:
    why = {
        "light": "its steps cost less than the calls around them, so few processes share them",
        "atari": "emulators get the cores that the learner leaves",
        "python": "it is stepped in Python, by one core an actor",
    }[kind]
    threads = f" on {config.job.env_threads} threads" if config.job.env_threads > 1 else ""
    gpu = " and a GPU" if facts.has_gpu and config.job.device != "cpu" else ""
    return (
        f"{_count(config.job.num_actors, 'actor')} with "
        f"{_count(config.environment.envs_per_actor, 'environment slot')} each{threads}, "
        f"{_count(config.job.learner_threads, 'learner thread')}, for "
        f"{_count(facts.num_cores, 'core')}{gpu} and {config.environment.env}: {why}"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _find_free_mib(cgroup_path: Path) -> int | None:
    """Returns the smaller of the machine's free memory and the container's remaining limit."""
    found = []
    for line in _read_lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) // 1024)
    limit, used = (
        _read_words(cgroup_path / "memory.max"),
        _read_words(cgroup_path / "memory.current"),
    )
    if limit and used and limit[0].isdecimal() and used[0].isdecimal():
        found.append(max(0, int(limit[0]) - int(used[0])) // 2**20)
    return min(found, default=None)


def _read_words(path: Path) -> list[str]:
    return " ".join(_read_lines(path)).split()


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
