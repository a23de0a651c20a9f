"""Registers networks that the parent process passed as Python objects.

Called by the learner process, actors and evaluators before they make a network.
"""

from __future__ import annotations

from impala_common.models.registry import register_model
from impala_common.process.passed_objects import Objects, unpack_object


def register_inherited_models(objects: Objects) -> None:
    """Registers every model among `objects` under its name.

    Raises:
      ConfigError: one cannot be made in this process.
    """
    for (kind, name), data in objects.items():
        if kind == "model":
            register_model(name, unpack_object(name, data))
