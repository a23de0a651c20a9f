"""User-supplied networks: found by name, adapted to AgentModel.

Called by the registry. "module:Class" is imported, and only where this process's own
command line or run folder names it: a learner's answer alone never makes an actor import code
(docs/models.md, Trust). Errors of user code become ModelError with the line of that code.
"""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import nn

from impala_common.errors import FOREIGN_ERRORS, ModelError
from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.process.own_modules import hint_at_import_error, import_own_module
from impala_common.spec.specs import TensorSpec

_NOT_THEIRS = (
    str(Path(torch.__file__).parent),
    str(Path(importlib.__file__).parent),
    str(Path(__file__).parents[1]),  # this package
    "<frozen",
)


class ForwardModel(AgentModel):
    """Makes an AgentModel of any module with forward(inputs, state) -> ModelOutputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns the network's specs; none if it has no such method."""
        specs = getattr(self.network, "agent_state_specs", tuple)
        return tuple(specs())

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs the network."""
        outputs: ModelOutputs = self.network(inputs, state)
        return outputs


def import_model_class(name: str) -> type[nn.Module]:
    """Returns the class that "module:Class" names.

    Raises:
      ModelError: there is no such module or class, importing fails, or it is no nn.Module.
    """
    module_name, _, class_name = name.partition(":")
    try:
        found: Any = import_own_module(module_name)  # Any: a module, then what is in it
    except FOREIGN_ERRORS as error:
        hint = hint_at_import_error(module_name, error)
        raise ModelError(f"cannot be imported: {describe_error(error)}{hint}") from error
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        what = "is nowhere in it" if found is None else "is no torch.nn.Module"
        raise ModelError(f"module {module_name} was imported, but {class_name} {what}")
    return found


def describe_error(error: BaseException) -> str:
    """Returns type and text of an error, and the last line of user code in its traceback."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_NOT_THEIRS):
            return f"{text} ({Path(frame.filename).name}:{frame.lineno})"
    return text
