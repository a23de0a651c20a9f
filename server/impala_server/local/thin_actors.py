"""The thin actors of `impala-train --thin`: which runs can have them, and their commands.

They are ordinary `impala-thin-actor` commands against the local policy server; nothing of them is
imported.
"""

from __future__ import annotations

from impala_common.config import TrainConfig
from impala_common.config.checks import require
from impala_common.process.own_modules import python_command
from impala_common.process.passed_objects import ObjectMemory
from impala_server.local.security import local_address, local_client_security
from impala_server.local.tuning import find_environment_kind

_BACKENDS = ("auto", "sync", "entry-point")
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
    require(
        "--env-backend",
        environment.env_backend,
        environment.env_backend in _BACKENDS,
        f"one of {', '.join(_BACKENDS)} with --thin",
    )
    require(
        "--thin",
        True,
        find_environment_kind(config) != "atari",
        f"left out for {environment.env}",
        "a thin actor plays environments as Gymnasium makes them, without Atari's preprocessing",
    )
    require(
        "--env-wrapper",
        " ".join(environment.env_wrapper),
        not environment.env_wrapper,
        "left out with --thin",
        "a thin actor does not wrap environments: register the wrapped one under an id of its own",
    )
    require(
        "--tls-client-ca",
        config.security.tls_client_ca,
        not config.security.tls_client_ca,
        "left out with --thin",
        "impala-thin-actor shows no certificate; an actor token authenticates it",
    )
    require(
        "--thin",
        True,
        objects is None,
        "left out where environment or network are Python objects of this process",
        "policy server and thin actors are other programs, which make their own",
    )


def thin_actor_command(config: TrainConfig, address: str, client_id: str, seed: int) -> list[str]:
    """Returns the command of one thin actor of the policy server at `address`."""
    environment = config.environment
    command = [*python_command("impala_thin"), "--server", local_address(address)]
    command += ["--client-id", client_id, "--env", environment.env, "--seed", str(seed)]
    command += ["--slots", str(environment.envs_per_actor)]
    command += ["--connect-timeout-s", str(_CONNECT_S)]
    if environment.env_kwargs:
        command += ["--env-kwargs", environment.env_kwargs]
    security = local_client_security(config.security, address)
    for name in ("ca_file", "token_file", "server_name"):
        value = getattr(security, name)
        command += [f"--{name.replace('_', '-')}", value] if value else []
    return command
