"""The learner server: front end, rollout storage, learner, and the commands that run them.

`from impala_server import IMPALA` works as `from impala_rl import IMPALA` does. The class
is in `impala_agent`, one layer up, and is imported only when somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impala_agent.agent import IMPALA

__all__ = ["IMPALA"]


def __getattr__(name: str) -> Any:  # Any: what the module's attributes are
    """Imports the class when it is asked for."""
    if name == "IMPALA":
        from impala_agent.agent import IMPALA

        return IMPALA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names the class among the others."""
    return sorted({*globals(), *__all__})
