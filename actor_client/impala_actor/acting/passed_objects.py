"""Registers environments and networks that the parent process passed as Python objects.

Called by impala-actor and impala-evaluator at their start when they were given
`--objects-fd`. Must run before the first look-up of an environment or a network.
"""

from __future__ import annotations

from impala_actor.environments.factory import register_environment
from impala_common.models.passed_models import register_inherited_models
from impala_common.process.passed_objects import read_objects, unpack_object


def register_inherited(fd: int) -> None:
    """Registers all objects in the memory behind descriptor `fd`.

    Raises:
      ConfigError: an object cannot be made in this process.
    """
    objects = read_objects(fd)
    for (kind, name), data in objects.items():
        if kind == "environment":
            register_environment(name, unpack_object(name, data))
        elif kind == "registration":
            _register_id(name, data)
    register_inherited_models(objects)


def _register_id(env_id: str, data: bytes) -> None:
    """Registers a Gymnasium id that the parent's own code had registered."""
    import gymnasium

    if env_id not in gymnasium.registry:
        gymnasium.registry[env_id] = unpack_object(env_id, data)
