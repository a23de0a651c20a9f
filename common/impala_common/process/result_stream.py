"""The stream of a command's results, apart from what environments and networks print.

stdout belongs to results (`--json`). Code of a user's own writes to descriptor 1 as well: in
Python, in native libraries, when the process ends. `claim_stdout` moves the results to a
descriptor that such code does not know, and sends everything else to stderr.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO


def claim_stdout() -> TextIO:
    """Returns a stream to this process's stdout; what is printed from now on goes to stderr.

    For commands only, at their start: it cannot be undone.
    """
    sys.stdout.flush()
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    errors = getattr(sys.stdout, "errors", None)  # of prepare_standard_streams: similar characters
    if errors in (None, "strict", "surrogateescape"):
        errors = "backslashreplace"
    results = open(os.dup(1), "w", encoding=encoding, errors=errors)  # noqa: SIM115
    os.dup2(2, 1)
    return results
