"""The help of impala-train and impala-server: --help with common options, --help-all with all.

Not made by tyro, which keeps the line ends of docstrings.
"""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from impala_common.config.toml_io import NONE, document_fields
from impala_common.config.train import TrainConfig

HELP_ALL = "--help-all"
"""The option that shows the help of every option."""

_SETTINGS = (
    ("environment", "env", "ID"),
    ("job", "total_steps", "N"),
    ("job", "num_actors", "N"),
    ("job", "seed", "N"),
    ("job", "device", "NAME"),
    ("model", "model", "NAME"),
    ("rollout", "batch_size", "B"),
    ("optimizer", "learning_rate", "X"),
    ("transport", "host", "HOST"),
    ("transport", "port", "PORT"),
)
_RUN = {"preset": "NAME", "config": "FILE", "run_dir": "DIR", "resume": "DIR"}
_FLAGS = ("resume_if_exists", "json", "quiet", "verbose")
_MAX_WIDTH = 100
_INDENT = 26


def make_short_help(
    program: str,
    description: str,
    run_options: type[Any],
    extra: type[Any] | None = None,
) -> str:
    """Returns the text of --help, as wide as the terminal.

    Args:
      program: the command's name.
      description: its description.
      run_options: dataclass of the options that are not settings.
      extra: dataclass of options that only this command has.
    """
    width = _terminal_width()
    sections = get_type_hints(TrainConfig)
    lines = [f"usage: {program} ENV [OPTIONS]", "", *textwrap.wrap(description, width), ""]
    for section, name, metavar in _SETTINGS:
        lines += _describe(
            f"{_option(name)} {metavar}", document_fields(sections[section])[name], width
        )
    lines.append("")
    texts = document_fields(run_options)
    for name, metavar in _RUN.items():
        lines += _describe(f"{_option(name)} {metavar}", texts[name], width)
    for name in _FLAGS:
        lines += _describe(_option(name), texts[name], width)
    if extra is not None:
        texts = document_fields(extra)
        hints = get_type_hints(extra)
        for field in dataclasses.fields(extra):
            value = "" if hints[field.name] is bool else f" {field.metadata.get('metavar', 'X')}"
            lines += _describe(f"{_option(field.name)}{value}", texts[field.name], width)
    lines.append("")
    lines += _describe("--help-all", "Every option, by section, with its default.", width)
    lines += _describe("--version", "The version.", width)
    names = ", ".join(field.name for field in dataclasses.fields(TrainConfig))
    lines += ["", *textwrap.wrap(f"Every setting is an option; sections: {names}.", width)]
    return "\n".join(lines) + "\n"


def make_full_help(
    program: str,
    description: str,
    start: str,
    sections: Sequence[tuple[str, type[Any], Any]],  # Any: dataclasses and their instances
) -> str:
    """Returns the text of --help-all.

    Args:
      program: the command's name.
      description: its description.
      start: source of the defaults.
      sections: name, dataclass and instance with the defaults; no instance: the class's own.
    """
    width = _terminal_width()
    lines = [f"usage: {program} [OPTIONS]", "", *textwrap.wrap(description, width)]
    lines += ["", *textwrap.wrap(f"Defaults shown: {start}.", width)]
    for section, kind, instance in sections:
        lines += ["", f"{section}:"]
        texts, hints = document_fields(kind), get_type_hints(kind)
        annotations = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            default = getattr(instance, field.name, field.default)
            option, shown = _option(field.name), _show(default)
            for metadata in getattr(annotations[field.name], "__metadata__", ()):
                option += "".join(
                    f" | {alias}" for alias in getattr(metadata, "aliases", None) or ()
                )
            if hints[field.name] is bool and section not in ("run", "command"):
                option += f" | --no-{option[2:]}"
            elif hints[field.name] is not bool:
                option += f" {_metavar_of(hints[field.name])}"
            text = f"{texts.get(field.name, '')} (default: {shown})"
            lines += _describe(option, text, width)
    return "\n".join(lines) + "\n"


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value) or "empty"


def _metavar_of(kind: Any) -> str:  # Any: an annotation
    """Returns the placeholder of the value of an option of this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin is tuple:
        return f"[{_metavar_of(arguments[0])} ...]"
    if origin is not None:  # it may be None
        return f"{_metavar_of(arguments[0])}|{NONE}"
    return {int: "INT", float: "FLOAT", Path: "PATH"}.get(kind, "TEXT")


def _terminal_width() -> int:
    return max(40, min(_MAX_WIDTH, shutil.get_terminal_size((_MAX_WIDTH, 24)).columns))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _describe(option: str, text: str, width: int) -> list[str]:
    """Returns the lines of one option: its text beside it, or below it in a narrow terminal."""
    indent = _INDENT if width >= 70 else 6
    lines = textwrap.wrap(text, width - indent, break_on_hyphens=False) or [""]
    if len(option) + 4 > indent:
        return [f"  {option}", *(" " * indent + line for line in lines)]
    return [f"  {option}".ljust(indent) + lines[0], *(" " * indent + line for line in lines[1:])]
