"""Makes one environment in a process of its own, to check that it can be made.

    python -m impala_actor.environment_probe ENV SETTINGS

Started by impala-train before its other processes; SETTINGS is the section "environment" as
JSON. Prints one JSON object on stdout: {"spec": specification of the environment} or {"reason",
"text"} of an error of this project. What the environment prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from impala_actor.environments.factory import make_environment
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ImpalaError, UnknownEnvironmentError
from impala_common.spec.specs import EnvironmentSpec


def describe_failure(env: str, error: Exception) -> UnknownEnvironmentError:
    """Returns the error for an environment whose own code raised while it was made."""
    text = " ".join(str(error).split())[:500]
    hint = ""
    if isinstance(error, TypeError) and "required" in text:
        hint = '; give its arguments with --env-kwargs, such as \'{"render_mode": "rgb_array"}\''
    elif "render_mode" in text:
        hint = '; give it with --env-kwargs \'{"render_mode": "rgb_array"}\''
    return UnknownEnvironmentError(f"{env} cannot be made: {type(error).__name__}: {text}{hint}")


def probe(env: str, config: EnvironmentConfig) -> EnvironmentSpec:
    """Makes one environment slot and closes it; returns its specification.

    Raises:
      ImpalaError: it cannot be made, or used.
    """
    try:
        environment = make_environment(env, 1, config)
    except ImpalaError:
        raise
    except Exception as error:  # code of users may raise any error
        raise describe_failure(env, error) from error
    spec = environment.spec
    with contextlib.suppress(Exception):  # an environment that fails to close is still usable
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
    sys.stdout.flush()
    os._exit(0)  # does not wait for threads and exit handlers of the environment


if __name__ == "__main__":
    main(*sys.argv[1:])
