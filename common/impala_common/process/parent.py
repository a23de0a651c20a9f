"""Which process started this one, for a process that is to end together with it.

The starter says it in the environment. A process that asked the system after its imports would
be told the number of whoever adopted it, if the starter had died meanwhile, and never end.
"""

from __future__ import annotations

import os

_VARIABLE = "IMPALA_PARENT_PID"


def name_parent() -> dict[str, str]:
    """Returns what the environment of a process that this one starts must have."""
    return {_VARIABLE: str(os.getpid())}


def find_parent() -> int:
    """Returns the number of the process that started this one; it may have ended.

    Without a word of the starter, such as a script of a user, the present parent's. The variable
    is removed: it says nothing about the parents of the processes that this one starts.
    """
    text = os.environ.pop(_VARIABLE, "")
    return int(text) if text.isdecimal() else os.getppid()


def is_parent_gone(parent: int) -> bool:
    """Whether the process that started this one, of that number, has ended."""
    return os.getppid() != parent
