"""The learner server: front end, rollout storage, learner, and the commands that run them.

`from impala_server import IMPALA` works as `from impala_rl import IMPALA` does. The class
is in `impala_agent`, one layer up, and is imported only when somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impala_agent.agent import IMPALA

__all__ = ["IMPALA", "__version__"]


def __getattr__(name: str) -> Any:  # Any: what the module's attributes are
    """Imports the class, or reads the version, when it is asked for."""
    if name == "IMPALA":
        from impala_agent.agent import IMPALA

        return IMPALA
    if name == "__version__":
        from impala_common.process.installation import find_version

        return find_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names the class among the others."""
    return sorted({*globals(), *__all__})
