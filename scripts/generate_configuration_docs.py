"""Makes docs/configuration.md from the settings' own documentation, or checks it (--check).

Called by `make docs` and `make check-docs`.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from pathlib import Path

from generated_page import write_or_check

from impala_common.config import TrainConfig
from impala_common.config.presets import PRESETS, make_preset
from impala_common.config.toml_io import document_fields

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

HEAD = """# Configuration

With this page you can set everything. Each setting is an option of `impala-train` and
`impala-server` (`learning_rate` is `--learning-rate`) and a key of config.toml. Options overrule
`--config FILE`, which overrules the preset.

`--help-all` shows every option. Not settings: `--run-dir`, `--resume`, `--resume-if-exists`,
`--preset`, `--config`, `--json`, `--quiet`, `--verbose`, `--log-format`; `impala-server`:
`--finished-notice-s`; `impala-train`: `--list-presets`, `--list-envs`, `--dry-run`. A setting that
is true or false is `--NAME` or `--no-NAME`; several values follow each other
(`--hidden-sizes 64 64`); an absent number is `none`.

Made by `make docs`.
"""

PRESETS_HEAD = """`--preset` names one, else the environment chooses
(`impala-train --list-presets`). They change these defaults:"""

BASES = {"mujoco": "generic", "lunarlander": "generic", "minatar": "atari"}
"""Presets that are shown as changes of another one."""


def render() -> str:
    """Returns the page."""
    lines = [HEAD]
    presets = {name: make_preset(name) for name in PRESETS}
    types = typing.get_type_hints(TrainConfig)
    for section in dataclasses.fields(TrainConfig):
        kind = types[section.name]
        lines.append(f"\n## [{section.name}]\n\n{(kind.__doc__ or '').splitlines()[0]}\n")
        lines.append("| setting | default | meaning |\n|---|---|---|")
        documentation = document_fields(kind)
        default = getattr(TrainConfig(), section.name)
        for field in dataclasses.fields(kind):
            text = documentation[field.name].replace("|", "\\|")
            value = _show(getattr(default, field.name))
            lines.append(f"| `{field.name}` | {value} | {text} |")
    lines.append(f"\n## Presets\n\n{PRESETS_HEAD}\n")
    for name, preset in presets.items():
        based_on = BASES.get(name)
        changes = _differences(preset, presets[based_on] if based_on else TrainConfig())
        text = " ".join((PRESETS[name].__doc__ or "").split())
        more = f"As `{based_on}`, but " if based_on else ""
        lines.append(f"- `{name}`: {text} {more}{', '.join(changes)}.")
    return "\n".join(lines) + "\n"


def _differences(config: TrainConfig, base: TrainConfig) -> list[str]:
    """Returns the settings in which a config differs from `base`, with its values."""
    found = []
    for section in dataclasses.fields(TrainConfig):
        changed, usual = getattr(config, section.name), getattr(base, section.name)
        for field in dataclasses.fields(usual):
            value = getattr(changed, field.name)
            if value != getattr(usual, field.name):
                found.append(f"`{field.name}={_show(value)}`")
    return found


def _show(value: object) -> str:
    if value is None:
        return "none"
    if value == "":
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render()))
