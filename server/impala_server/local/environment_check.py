"""Finds out before a run begins whether its environment can be made, in a short-lived process.

Used by impala-train. The process is a module of the actor's side, started by name: nothing of it
is imported here.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys

from impala_common.config import EnvironmentConfig
from impala_common.config.checks import OBJECT_PREFIX
from impala_common.errors import rebuild_error
from impala_common.process.answering import run_to_its_end
from impala_common.spec.specs import EnvironmentSpec

PROBE_S = 10.0
"""Seconds after which an environment that is still being made is accepted."""

_LOG = logging.getLogger(__name__)
_ALWAYS_THERE = frozenset(
    {"Acrobot-v1", "CartPole-v0", "CartPole-v1", "MountainCar-v0", "Pendulum-v1"}
)
"""Ids that Gymnasium itself provides without another package."""


def require_environment(
    config: EnvironmentConfig, timeout_s: float = PROBE_S
) -> EnvironmentSpec | None:
    """Returns the specification of an environment, where it is looked for and can be found out.

    Raises:
      ImpalaError: it cannot be made on this machine, with the class and text that an actor would
        report.
    """
    env = config.env
    is_plain = config.env_backend in ("auto", "sync") and not config.changes_single_environments
    if not env.startswith(OBJECT_PREFIX) and not (env in _ALWAYS_THERE and is_plain):
        return find_environment_spec(config, timeout_s)
    return None


def find_environment_spec(
    config: EnvironmentConfig, timeout_s: float = PROBE_S
) -> EnvironmentSpec | None:
    """Returns the specification of an environment; None where it cannot be found out.

    Raises:
      ImpalaError: it cannot be made on this machine, with the class and text that an actor would
        report.
    """
    env = config.env
    command = [sys.executable, "-m", "impala_actor.environment_probe", env]
    command.append(json.dumps(dataclasses.asdict(config)))
    try:
        done = run_to_its_end(command, timeout_s)
    except TimeoutError:
        _LOG.info("%s takes longer than %g s to make: it is not checked", env, timeout_s)
        return None
    try:
        answer = json.loads(done.out)
    except ValueError:  # its process died: the actors' logs will have the reason
        _LOG.info("%s could not be checked (exit code %d)", env, done.code)
        return None
    if "reason" in answer:
        raise rebuild_error(answer["reason"], answer["text"])
    return EnvironmentSpec.from_json(answer["spec"])
