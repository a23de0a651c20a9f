"""The public names of `impala_rl`: there, lazy, typed, and the same objects as inside."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import impala_rl

HEAVY = ("torch", "gymnasium", "grpc", "impala_common", "impala_server", "impala_actor",
         "impala_agent")  # fmt: skip


def loaded_by(code: str) -> list[str]:
    """Returns which of HEAVY a fresh interpreter has loaded after `code`."""
    code += f"; import sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_of_the_package_and_its_messages_loads_nothing_heavy() -> None:
    code = (
        "import impala_rl, impala_rl.v1; from impala_rl.v1 import "
        "admin_pb2, evaluation_pb2, learner_pb2, unroll_pb2"
    )

    assert loaded_by(code) == []


@pytest.mark.parametrize("name", ["PRESETS", "make_preset", "ImpalaError", "TrainConfig"])
def test_settings_and_errors_need_no_torch(name: str) -> None:
    assert loaded_by(f"from impala_rl import {name}") == ["impala_common"]


@pytest.mark.parametrize("name", impala_rl.__all__)
def test_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(impala_rl, name) is not None
    assert name in dir(impala_rl)


def test_tables_of_public_names_agree() -> None:
    tree = ast.parse(Path(impala_rl.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    modules = {
        alias.name: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert modules == impala_rl._MODULES
    assert set(modules) == set(impala_rl.__all__)


def test_page_of_the_api_has_every_name() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()

    missing = [name for name in impala_rl.__all__ if name not in page]
    assert missing == []


def test_class_is_the_one_of_impala_server() -> None:
    from impala_agent.agent import IMPALA
    from impala_server import IMPALA as OF_SERVER

    assert impala_rl.IMPALA is IMPALA is OF_SERVER


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'impala_rl' has no attribute 'Impala'"):
        _ = impala_rl.Impala
