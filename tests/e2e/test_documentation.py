"""Every block of commands or Python in README.md and docs/ runs, or says what it needs.

The blocks of a page run in order, in one empty folder, as a reader would run them. Trainings are
shortened: to STEPS agent steps, and evaluations to two episodes. A Python block whose first line
is a comment with a file's name is that file. Lines that install packages are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from documentation import PAGES, ROOT, Block, find_blocks

pytestmark = pytest.mark.e2e

STEPS = 1500
_FILE = re.compile(r"# (\w+\.py)\b")
_TRAIN_STEPS = re.compile(r"(\btrain\((?:num_train_steps=)?)[\d_]+")
_LISTINGS = "--list-presets|--list-envs|--dry-run|--help|--version|--tyro-print-completion"
_SHIM = f"""#!/usr/bin/env bash
case " $* " in *\\ @({_LISTINGS})*) exec {{command}} "$@" ;; esac
exec {{command}} "$@" {{more}}
"""
_RUNNABLE = [page for page in PAGES if any(not block.reason for block in find_blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_block_that_is_not_run_says_why(page: Path) -> None:
    for block in find_blocks(page):
        assert block.language != "console" or block.reason, (
            f"{page}:{block.line}: a console block shows output; say why it is not run"
        )
        assert not block.reason or len(block.reason.split()) >= 2, f"{page}:{block.line}"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which trainings are short."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shims = {
        "impala-train": f"--total-steps {STEPS} --eval-episodes 2 --quiet",
        "impala-eval": "--episodes 2",
    }
    for name, more in shims.items():
        command = shutil.which(name, path=str(Path(sys.executable).parent))
        assert command is not None
        (folder / name).write_text("shopt -s extglob\n".join(
            [_SHIM.splitlines(keepends=True)[0], "".join(_SHIM.splitlines(keepends=True)[1:])]
        ).format(command=command, more=more))  # fmt: skip
        (folder / name).chmod(stat.S_IRWXU)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def run_block(block: Block, folder: Path, path: str) -> None:
    """Runs one block in a folder."""
    text = block.text
    if block.language == "python":
        if (name := _FILE.match(text)) is not None:
            (folder / name[1]).write_text(text)
            return
        text = _TRAIN_STEPS.sub(rf"\g<1>{STEPS}", text)
        command = [sys.executable, "-c", text]
    else:
        lines = [line for line in text.splitlines() if not line.startswith("pip install")]
        command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"{block.page.relative_to(ROOT)}:{block.line} ended with {done.returncode}\n"
        f"{text}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    )


@pytest.mark.slow
@pytest.mark.documentation
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_a_page_run(page: Path, tmp_path: Path, path: str) -> None:
    for package in ("plotly", "pandas", "onnxruntime", "optuna"):
        if package in page.read_text(encoding="utf-8"):
            pytest.importorskip(package)
    folder = tmp_path / "reader"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")

    for block in find_blocks(page):
        if not block.reason:
            run_block(block, folder, path)
