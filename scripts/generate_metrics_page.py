"""Makes docs/metrics.md from the documentation of metrics' names, or checks it (--check).

Called by `make docs` and `make check-docs`.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
from pathlib import Path

from generated_page import write_or_check

from impala_common.run import metrics

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

HEAD = """<!-- Made by scripts/generate_metrics_page.py; do not edit. -->
# Metrics

With this page you know what each number of metrics.jsonl and TensorBoard is. Trackers have the
same names ([tracking](tracking.md)), Prometheus its own ([operations](operations.md#metrics)).
`_s` is seconds; rates are per second of wall clock. A metric without a value is missing or NaN.

| name | is |
|---|---|"""

TAIL = """`parameter/NAME` is in the line that was written when the
[parameter](operations.md#parameters) was set. `ranks/RANK/NAME` is of one
[learner rank](scaling.md):"""


def render() -> str:
    """Returns the page."""
    texts = document_names()
    rows = [f"| `{name}` | {texts.get(name, 'Likewise.')} |" for name in metrics.ALL_METRICS]
    ranks = inspect.getdoc(metrics.rank_metric) or ""
    tail = textwrap.wrap(TAIL + ranks.partition("Of `name`:")[2], 100)
    return "\n".join([HEAD, *rows, "", *tail]) + "\n"


def document_names() -> dict[str, str]:
    """Returns the text under each name of a metric, by the name."""
    found = {}
    for assignment, text in itertools.pairwise(ast.parse(inspect.getsource(metrics)).body):
        match assignment, text:
            case ast.Assign(value=ast.Constant(str(name))), ast.Expr(ast.Constant(str(words))):
                found[name] = " ".join(words.split()).replace("|", "\\|")
    return found


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render()))
