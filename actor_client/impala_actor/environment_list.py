"""Lists the environments that can be made here with their presets: impala-train --list-envs.

    python -m impala_actor.environment_list [PATTERN]

A process of its own, started by impala-train: it imports the packages of environments. An id whose
package is missing is left out. Of several versions of an environment the newest is listed.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable

import gymnasium

from impala_common.config.presets import preset_for_environment
from impala_common.process.exit_codes import OK
from impala_rl.standard_streams import leave

_PACKAGES = ("ale_py", "minigrid")
"""Packages that register ids when they are imported."""
_MINATAR = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
_VERSION = re.compile(r"(.+)-v(\d+)")
_INTERNAL = ("phys2d/", "tabular/", "GymV21Environment", "GymV26Environment")
"""Ids that need jax, or an environment to wrap."""


def list_environments(pattern: str = "*") -> list[tuple[str, str]]:
    """Returns id and preset of each environment that matches, by id.

    Args:
      pattern: with `*` and `?` as in file names, else a part of the id; letters of any case.
    """
    pattern = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    ids = [env for env in _find_ids() if fnmatch.fnmatchcase(env.lower(), pattern.lower())]
    return [(env, preset_for_environment(env)) for env in sorted(ids)]


def _find_ids() -> list[str]:
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is not None:
            module = importlib.import_module(package)
            register = getattr(module, "register_minigrid_envs", None)
            if register is not None and "MiniGrid-Empty-5x5-v0" not in gymnasium.registry:
                register()
    usable: dict[str, bool] = {}
    ids = []
    for env, spec in gymnasium.registry.items():
        entry = spec.entry_point if isinstance(spec.entry_point, str) else ""
        module_name = entry.partition(":")[0]
        if not module_name or env.startswith(_INTERNAL) or _is_old_atari(env, entry):
            continue
        if module_name not in usable:
            usable[module_name] = _can_import(module_name)
        if usable[module_name]:
            ids.append(env)
    if importlib.util.find_spec("minatar") is not None:
        ids += [f"MinAtar/{game}-v1" for game in _MINATAR]
    return _keep_newest(ids)


def _is_old_atari(env: str, entry: str) -> bool:
    """Returns whether an id is of an old Atari version, all of which are ALE/ as well."""
    return entry.startswith("ale_py") and not env.startswith("ALE/")


def _can_import(name: str) -> bool:
    """Returns whether the module of an environment and what it needs are installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except Exception:  # any error of a foreign package means that it cannot be used
        return False
    return True


def _keep_newest(ids: Iterable[str]) -> list[str]:
    newest: dict[str, tuple[int, str]] = {}
    for env in ids:
        match = _VERSION.fullmatch(env)
        name, version = (match[1], int(match[2])) if match else (env, -1)
        newest[name] = max(newest.get(name, (-2, "")), (version, env))
    return [env for _version, env in newest.values()]


def main(pattern: str = "*") -> None:
    """Runs the process: prints the list as JSON; what packages print goes to stderr."""
    result = os.dup(1)
    os.dup2(2, 1)
    os.write(result, json.dumps(list_environments(pattern)).encode())
    leave(OK)


if __name__ == "__main__":
    main(*sys.argv[1:])
