"""impala-admin: what a person asks of a learner, and `impala-admin certs`, which needs none.

`certs ...` belongs to `impala_actor.certs.run_certs(argv) -> int`; everything else
is dispatched here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from impala_actor.certs import run_certs
from impala_common.exit_codes import USAGE


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    if argv and argv[0] == "certs":
        return run_certs(argv[1:])
    sys.stderr.write("usage: impala-admin certs init DIR [--name NAME ...] [--days N]\n")
    return USAGE
