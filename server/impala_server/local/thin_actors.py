"""The thin actors of `impala-train --thin`: which runs can have them, and their commands.

They are ordinary `impala-thin-actor` commands against the local policy server; nothing of them is
imported.
"""

from __future__ import annotations

import json

import numpy as np

from impala_common.config import TrainConfig
from impala_common.config.checks import require
from impala_common.process.own_modules import python_command
from impala_common.process.passed_objects import ObjectMemory
from impala_server.local.security import local_address, local_client_security
from impala_server.local.tuning import find_environment_kind

_BACKENDS = ("auto", "sync", "entry-point")
_ATARI_BACKENDS = ("auto", "ale")
_SEED_KEY = 0x7417  # a stream of its own, apart from those of actors and evaluations
_CONNECT_S = 20.0  # one that outlives impala-train ends after it


def validate_thin_run(config: TrainConfig, objects: ObjectMemory | None = None) -> None:
    """Raises ConfigError if thin actors cannot play these settings' environment.

    Args:
      config: all settings; those of a run without thin actors are always right.
      objects: environments and networks that are Python objects of this process.
    """
    if not config.policy_server.thin:
        return
    environment = config.environment
    is_atari = find_environment_kind(config) == "atari"
    backends = _ATARI_BACKENDS if is_atari else _BACKENDS
    require(
        "--env-backend",
        environment.env_backend,
        environment.env_backend in backends,
        f"one of {', '.join(backends)} with --thin",
    )
    require(
        "--atari-episodic-life",
        environment.atari_episodic_life,
        not (is_atari and environment.atari_episodic_life),
        "left out with --thin",
        "a thin actor's episodes are whole games",
    )
    require(
        "--env-kwargs",
        environment.env_kwargs,
        not (is_atari and environment.parsed_env_kwargs),
        "left out with --thin and Atari",
        "Atari has options of its own, such as --atari-frame-skip",
    )
    require(
        "--thin",
        True,
        objects is None,
        "left out where environment or network are Python objects of this process",
        "policy server and thin actors are other programs, which make their own",
    )


def thin_actor_seed(run_seed: int, learner_life: int, index: int, start: int) -> int:
    """Returns the seed of a thin actor's environments, in [0, 2**31), another one for each start.

    Args:
      run_seed: of the run.
      learner_life: how often the run's learner was started before.
      index: of the thin actor.
      start: how often this thin actor was started before, in this life.
    """
    parts = [run_seed, learner_life, index, start]
    sequence = np.random.SeedSequence(parts, spawn_key=(_SEED_KEY,))
    return int(sequence.generate_state(1, np.uint32)[0] >> np.uint32(1))


def thin_actor_command(config: TrainConfig, address: str, client_id: str, seed: int) -> list[str]:
    """Returns the command of one thin actor of the policy server at `address`."""
    environment = config.environment
    command = [*python_command("impala_thin"), "--server", local_address(address)]
    command += ["--client-id", client_id, "--env", environment.env, "--seed", str(seed)]
    command += ["--slots", str(environment.envs_per_actor)]
    command += ["--connect-timeout-s", str(_CONNECT_S)]
    if find_environment_kind(config) == "atari":
        command += ["--frame-stack", str(environment.atari_frame_stack)]
        command += ["--env-kwargs", json.dumps(_atari_options(config))]
    else:
        command += ["--env-kwargs", environment.env_kwargs] if environment.env_kwargs else []
        wrappers = environment.env_wrapper
        command += ["--env-wrapper", *wrappers] if wrappers else []
    security = local_client_security(config.security, address)
    for name in ("ca_file", "token_file", "client_cert", "client_key", "server_name"):
        value = getattr(security, name)
        command += [f"--{name.replace('_', '-')}", value] if value else []
    return command


def _atari_options(config: TrainConfig) -> dict[str, float]:
    """Returns the options of ale-py's vector environment that these settings choose."""
    environment = config.environment
    options: dict[str, float] = {
        "frameskip": environment.atari_frame_skip,
        "noop_max": environment.atari_noop_max,
        "use_fire_reset": environment.atari_fire_reset,
        "num_threads": max(1, min(config.job.env_threads, environment.envs_per_actor)),
    }
    sticky = environment.atari_sticky_action_probability
    return options if sticky is None else {**options, "repeat_action_probability": sticky}
