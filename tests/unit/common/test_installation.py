"""Versions of all commands, and install hints that work for a checkout and a release."""

from __future__ import annotations

import importlib
import importlib.metadata
import tomllib
from pathlib import Path

import pytest

import impala_server
from impala_common.process.installation import find_version, way_to_install

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("command", sorted(PROJECT["scripts"]))
def test_version_is_printed_by_every_command(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, name = PROJECT["scripts"][command].partition(":")
    main = getattr(importlib.import_module(module), "run", None) or getattr(
        importlib.import_module(module), name
    )

    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{command} {find_version()}\n"


def test_version_of_the_package_is_the_installed_one() -> None:
    assert impala_server.__version__ == importlib.metadata.version("impala-rl")


@pytest.mark.parametrize("extra", ["atari", "minatar", "wandb", "video", "onnx"])
def test_way_to_install_names_packages_of_the_extra_and_no_extra_of_this_package(
    extra: str,
) -> None:
    """The fault: from a checkout, pip looked for impala-rl[...] in an index."""
    text = way_to_install(extra)

    assert text.startswith("pip install '")
    assert "impala-rl" not in text
    for requirement in PROJECT["optional-dependencies"][extra]:
        assert requirement.partition(">")[0] in text
