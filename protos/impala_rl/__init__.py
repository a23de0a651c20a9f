"""The public names of impala-rl, each imported when it is first asked for.

`import impala_rl` and `import impala_rl.v1` (the generated protocol code) load
neither torch nor any other package of this project. docs/migration.md, section
Public names, says what may change without notice: everything that is not here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impala_actor.environments.factory import make_environment
    from impala_actor.evaluation.policy_evaluation import Evaluation, evaluate
    from impala_agent.agent import IMPALA
    from impala_agent.callbacks import Callback, Progress
    from impala_agent.results import EvalResult, TrainResult
    from impala_agent.shipped_callbacks import NotebookPlot, ProgressBar, SaveEvery, StopAtReturn
    from impala_common.config import TrainConfig
    from impala_common.config.presets import PRESETS, make_preset, preset_for_environment
    from impala_common.errors import ImpalaError
    from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
    from impala_common.models.policy_head import PolicyHead
    from impala_common.models.trunk import Encoder
    from impala_common.numerics import vtrace
    from impala_common.policy.exported_policy import load_policy
    from impala_common.policy.frozen_policy import FrozenPolicy
    from impala_common.policy.prediction import PredictState
    from impala_common.run.run_data import EvaluationPoint, RunData, read_run
    from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec

_MODULES = {
    "IMPALA": "impala_agent.agent",
    "TrainResult": "impala_agent.results",
    "EvalResult": "impala_agent.results",
    "Callback": "impala_agent.callbacks",
    "Progress": "impala_agent.callbacks",
    "StopAtReturn": "impala_agent.shipped_callbacks",
    "SaveEvery": "impala_agent.shipped_callbacks",
    "ProgressBar": "impala_agent.shipped_callbacks",
    "NotebookPlot": "impala_agent.shipped_callbacks",
    "read_run": "impala_common.run.run_data",
    "RunData": "impala_common.run.run_data",
    "EvaluationPoint": "impala_common.run.run_data",
    "ImpalaError": "impala_common.errors",
    "TrainConfig": "impala_common.config",
    "PRESETS": "impala_common.config.presets",
    "make_preset": "impala_common.config.presets",
    "preset_for_environment": "impala_common.config.presets",
    "FrozenPolicy": "impala_common.policy.frozen_policy",
    "load_policy": "impala_common.policy.exported_policy",
    "PredictState": "impala_common.policy.prediction",
    "make_environment": "impala_actor.environments.factory",
    "Evaluation": "impala_actor.evaluation.policy_evaluation",
    "evaluate": "impala_actor.evaluation.policy_evaluation",
    "AgentModel": "impala_common.models.contract",
    "AgentState": "impala_common.models.contract",
    "ModelInputs": "impala_common.models.contract",
    "ModelOutputs": "impala_common.models.contract",
    "Encoder": "impala_common.models.trunk",
    "PolicyHead": "impala_common.models.policy_head",
    "EnvironmentSpec": "impala_common.spec.specs",
    "ModelSpec": "impala_common.spec.specs",
    "TensorSpec": "impala_common.spec.specs",
    "vtrace": "impala_common.numerics",
}
"""By public name: the module that defines it (for `vtrace`, a module, its package)."""

__all__ = [
    "IMPALA", "TrainResult", "EvalResult", "ImpalaError",
    "Callback", "Progress", "StopAtReturn", "SaveEvery", "ProgressBar", "NotebookPlot",
    "read_run", "RunData", "EvaluationPoint",
    "TrainConfig", "PRESETS", "make_preset", "preset_for_environment",
    "FrozenPolicy", "load_policy", "PredictState", "make_environment", "Evaluation", "evaluate",
    "AgentModel", "AgentState", "ModelInputs", "ModelOutputs", "Encoder", "PolicyHead",
    "EnvironmentSpec", "ModelSpec", "TensorSpec",
    "vtrace",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # Any: what the public names are
    """Imports a public name from its module and keeps it here."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "vtrace":
        value: Any = importlib.import_module("impala_common.numerics.vtrace")
    else:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names beside what is loaded."""
    return sorted({*globals(), *__all__})
