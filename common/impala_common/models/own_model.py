"""Networks that this package does not ship: found by name, adapted to AgentModel.

Called by the registry. "module:Class" is imported, and only where this process's own
command line or run folder names it: a learner's answer alone never makes an actor
import anything (docs/models.md, Trust). What may be wrong with code of others comes
out as ModelError with the place in that code.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from impala_common.errors import ModelError
from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.specs import TensorSpec

_LIBRARIES = (str(Path(torch.__file__).parent), "<frozen", str(Path(importlib.__file__).parent))


class ForwardModel(AgentModel):
    """Makes an AgentModel of any module with forward(inputs, state) -> ModelOutputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns the network's specs; none where it has no method of this name."""
        specs = getattr(self.network, "agent_state_specs", tuple)
        return tuple(specs())

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs the network."""
        outputs: ModelOutputs = self.network(inputs, state)
        return outputs


def import_model_class(name: str) -> type[nn.Module]:
    """Returns the class that "module:Class" names.

    Searched where Python searches, then in the working directory (unless Python was told
    not to, by -P or PYTHONSAFEPATH), so that the installed commands find what `python -m`
    finds.

    Raises:
      ModelError: there is no such module or class, importing fails, or it is no nn.Module.
    """
    module_name, _, class_name = name.partition(":")
    try:
        with _working_directory_on_path():
            found: Any = importlib.import_module(module_name)  # Any: a module, then what is in it
    except (Exception, SystemExit) as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or "?"):
            hint = f": install it, or name its folder in PYTHONPATH (working in {os.getcwd()})"
        raise ModelError(f"cannot be imported: {describe_error(error)}{hint}") from error
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        what = "is nowhere in it" if found is None else "is no torch.nn.Module"
        raise ModelError(f"module {module_name} was imported, but {class_name} {what}")
    return found


def describe_error(error: BaseException) -> str:
    """Returns type and text of an error, and the last line outside of libraries it passed."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_LIBRARIES) and frame.filename != __file__:
            return f"{text} ({Path(frame.filename).name}:{frame.lineno})"
    return text


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    here = os.getcwd()
    if sys.flags.safe_path or here in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(here)  # last: nothing in it may stand in for an installed package
    try:
        yield
    finally:
        sys.path.remove(here)
