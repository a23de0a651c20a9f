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

# What the project's seed, rllte's IMPALA class, calls the same thing.
SEED_NAMES = {
    "unroll_length": "num_steps",
    "learning_rate": "lr",
    "entropy_cost": "ent_coef",
    "baseline_cost": "baseline_coef",
    "init_method": "network_init_method, init_fn",
    "total_steps": "num_train_steps",
}

HEAD = """# Configuration

With this page you can set everything: each setting is an option of `impala-train` and
`impala-server` (`learning_rate` is `--learning-rate`) and a key of config.toml. What counts most
comes last: preset (`--preset`, or chosen by the environment) < `--config FILE` < options. An
actor needs none of this: the learner tells it what it must know (`impala-actor --help`).

Made from the code by `make docs`.
"""


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
            if field.name in SEED_NAMES:
                text += f" In rllte: {SEED_NAMES[field.name]}."
            value = _show(getattr(default, field.name))
            lines.append(f"| `{field.name}` | {value} | {text} |")
    lines.append("\n## Presets\n")
    for name in presets:
        lines.append(f"- `{name}`: {' '.join((PRESETS[name].__doc__ or '').split())}")
    lines.append("\nWhere they differ from the defaults above:\n")
    lines.append(f"| setting | {' | '.join(f'`{name}`' for name in presets)} |")
    lines.append("|---" * (len(presets) + 1) + "|")
    differences = [_differences(preset) for preset in presets.values()]
    for setting in _differences(TrainConfig(), *presets.values()):
        cells = [found.get(setting, "") for found in differences]
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _differences(*configs: TrainConfig) -> dict[str, str]:
    """Returns the settings in which any config differs from the defaults, in their order."""
    default = TrainConfig()
    found = {}
    for section in dataclasses.fields(TrainConfig):
        base = getattr(default, section.name)
        for field in dataclasses.fields(base):
            for config in configs:
                value = getattr(getattr(config, section.name), field.name)
                if value != getattr(base, field.name):
                    found[field.name] = _show(value)
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
