"""Makes one environment in a process of its own, to check that it can be made and stepped.

    python -m impala_actor.environment_probe ENV SETTINGS

Started by impala-train before its other processes; SETTINGS is the section "environment" as
JSON. Prints one JSON object on stdout: {"spec": specification of the environment} or {"reason",
"text"} of an error of this project. What the environment prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.factory import make_environment
from impala_actor.environments.rebuilt import describe_failure
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import FOREIGN_ERRORS, ImpalaError
from impala_common.process.exit_codes import OK
from impala_common.spec.specs import EnvironmentSpec
from impala_rl.standard_streams import leave

_LOG = logging.getLogger(__name__)


def choose_legal_action(
    spec: EnvironmentSpec, observations: Mapping[str, NDArray[Any]]
) -> NDArray[Any] | None:
    """Returns an action [1, ...] that masks allow; None where that is not plain."""
    tensor = spec.action.tensor
    action = np.zeros((1, *tensor.shape), tensor.dtype)
    masks = [leaf.name for leaf in spec.observation_leaves if leaf.role == "action_mask"]
    if not masks:
        return action
    mask = np.concatenate([np.ravel(observations[name][0]) for name in masks]) != 0
    parts = spec.action.parts
    if len(parts) == 1 and parts[0].sizes == mask.shape:  # a single choice
        action[...] = np.argmax(mask)
        return action
    return action if mask.all() else None


def probe(env: str, config: EnvironmentConfig) -> EnvironmentSpec:
    """Makes one environment slot, plays one step and closes it; returns its specification.

    What reset and step raise themselves is left to the actors, which try again.

    Raises:
      ImpalaError: it cannot be made, or what it returns cannot be used.
    """
    try:
        environment = make_environment(env, 1, config)
    except ImpalaError:
        raise
    except FOREIGN_ERRORS as error:  # code of users may raise any error
        raise describe_failure(env, error) from error
    spec = environment.spec
    try:
        observations = environment.reset(seed=0)
        action = choose_legal_action(spec, observations)
        if action is not None:
            environment.step(action)
    except ImpalaError:
        raise
    except FOREIGN_ERRORS as error:  # code of users may raise any error
        _LOG.debug("%s raised in its first step: %s", env, error)
    with contextlib.suppress(*FOREIGN_ERRORS):  # an environment that fails to close is still usable
        environment.close()
    return spec


def main(env: str, settings: str) -> None:
    """Runs the process."""
    result = os.dup(1)
    os.dup2(2, 1)
    config = json.loads(settings)
    config["env_wrapper"] = tuple(config["env_wrapper"])
    answer: dict[str, Any]  # Any: JSON
    try:
        answer = {"spec": probe(env, EnvironmentConfig(**config)).to_json()}
    except ImpalaError as error:
        answer = {"reason": error.reason, "text": str(error)}
    os.write(result, json.dumps(answer).encode())
    leave(OK)


if __name__ == "__main__":
    main(*sys.argv[1:])
