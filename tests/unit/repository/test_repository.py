"""Rules of the whole repository that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from impala_common import errors

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = (
    "protos/impala_rl",
    "common/impala_common",
    "server/impala_server",
    "agent/impala_agent",
    "actor_client/impala_actor",
    "policy_server/impala_policy_server",
    "thin_client/impala_thin",
)
GENERATED = ("_pb2.py", "_pb2_grpc.py")

WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.clock_gettime",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
}
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "torch.load": "unpickles; use safetensors",
    "torch.save": "pickles; use safetensors",
    "yaml.load": "makes objects of any class",
}
MAY_IMPORT = {
    "common/impala_common/process/passed_objects.py": {"cloudpickle"},
}
"""File -> modules: Python objects pass to child processes through inherited memory, ADR 0019."""
MAY_READ_WALL_CLOCK = {
    "server/impala_server/tracking/event_file.py": "TensorBoard's events carry a date",
    "server/impala_server/tracking/mlflow_log.py": "MLflow's metrics carry a date",
    "actor_client/impala_actor/video/video_files.py": "TensorBoard's events carry a date",
    "actor_client/impala_actor/admin/certificate_authority.py": "certificates have dates",
    "server/impala_server/front_end/admin/audit_log.py": "each line says when it was written",
    "actor_client/impala_actor/report/run_summary.py": "ages of files are compared with the date",
    "actor_client/impala_actor/report/page.py": "a page says when it was written",
}
"""File -> why: to date things for people, never for deadlines or intervals."""


def package_files() -> list[Path]:
    """Returns every hand-written Python file of the packages."""
    return [
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.name.endswith(GENERATED)
    ]


def relative(path: Path) -> str:
    """Returns the path from the repository's root, also used as test id."""
    return path.relative_to(ROOT).as_posix()


def full_name(node: ast.expr, aliases: dict[str, str]) -> str:
    """Returns the dotted name `node` stands for, with import aliases resolved."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, aliases)}.{node.attr}"
    return "?"


def imported_names(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yields line, local name and full dotted name of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                yield node.lineno, local, alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, f"{node.module}.{alias.name}"


def find_violations(
    source: str, *, may_read_wall_clock: bool = False, may_import: Set[str] = frozenset()
) -> list[str]:
    """Returns what `source` does that no file of a package may do."""
    tree = ast.parse(source)
    found = []
    aliases = {}
    for line, local, name in imported_names(tree):
        aliases[local] = name
        if name.partition(".")[0] in FORBIDDEN_MODULES - may_import:
            found.append(f"line {line}: imports {name}")
    for node in ast.walk(tree):
        # A clock may also be handed on without being called: `clock=time.time`.
        if isinstance(node, ast.Attribute | ast.Name) and not may_read_wall_clock:
            name = full_name(node, aliases)
            if name in WALL_CLOCKS:
                found.append(f"line {node.lineno}: {name} jumps; use time.monotonic")
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, aliases)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in FORBIDDEN_CALLS:
            found.append(f"line {node.lineno}: {name} {FORBIDDEN_CALLS[name]}")
        if name.endswith(".load") and "allow_pickle" in keywords:
            value = keywords["allow_pickle"]
            if not (isinstance(value, ast.Constant) and value.value is False):
                found.append(f"line {node.lineno}: {name} unpickles")
        if name.endswith(".recv") and not node.args and not keywords:
            found.append(f"line {node.lineno}: {name} of a pipe unpickles; use recv_bytes")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from marshal import loads",
        "def f():\n    import shelve",
        "eval('1')",
        "exec(code)",
        "import torch\ntorch.load(path)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "connection.recv()",
        "import time\ndeadline = time.time() + 5",
        "from time import time\ndeadline = time() + 5",
        "import time\ndef wait(clock=time.time): ...",
        "import time\nnow_ns = time.time_ns()",
        "import datetime\nend = datetime.datetime.now(datetime.UTC)",
        "from datetime import datetime\nend = datetime.utcnow()",
    ],
)
def test_find_violations_with_planted_one_names_it(source: str) -> None:
    assert len(find_violations(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "model.eval()",
        "import time\ntime.monotonic()",
        "connection.recv_bytes()",
        "socket.recv(4096)",
    ],
)
def test_find_violations_with_harmless_code_finds_none(source: str) -> None:
    assert find_violations(source) == []


def test_package_files_are_found() -> None:
    assert len(package_files()) > 10


@pytest.mark.parametrize("path", package_files(), ids=relative)
def test_package_file_keeps_the_rules(path: Path) -> None:
    source = path.read_text("utf-8")

    violations = find_violations(
        source,
        may_read_wall_clock=relative(path) in MAY_READ_WALL_CLOCK,
        may_import=MAY_IMPORT.get(relative(path), set()),
    )

    assert violations == []
    assert ast.get_docstring(ast.parse(source)), "a module opens with its place in the machine"
    assert len(source.splitlines()) <= 400, "split by noun"


@pytest.mark.parametrize(
    "module",
    [
        "impala_server.cli",
        "impala_server.train_cli",
        "impala_actor.cli",
        "impala_actor.admin_cli",
        "impala_actor.evaluator_cli",
    ],
)
def test_command_module_when_imported_does_not_import_torch(module: str) -> None:
    folder = "server" if module.startswith("impala_server") else "actor_client"
    file = ROOT / folder / Path(*module.split(".")).with_suffix(".py")
    if not file.exists():
        pytest.skip(f"{relative(file)} does not exist yet")

    code = f"import sys, {module}; print(*sorted({{'torch'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", "--help and usage errors must not wait for torch"


def error_classes(base: type[errors.ImpalaError] = errors.ImpalaError) -> Iterator[type]:
    """Yields `base` and every class below it."""
    yield base
    for kind in base.__subclasses__():
        yield from error_classes(kind)


def test_every_error_has_its_own_reason() -> None:
    reasons = {kind: vars(kind).get("reason") for kind in error_classes()}

    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", reason or "") for reason in reasons.values())
    assert len(set(reasons.values())) == len(reasons)
