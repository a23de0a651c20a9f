"""Facts of a run for its logs: settings, name, an id of its own, new videos."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from impala_common.config import TrainConfig
from impala_common.config.toml_io import NONE, setting_names
from impala_common.run.run_directory import RunDirectory, write_json_atomic

_IDS_FILE = "tracking.json"
_PATHS = ("security", "admin")  # sections whose values are paths of this machine
_STEP = re.compile(r"step-(\d+)-return-")


def name_run(run: RunDirectory) -> str:
    """Returns the run's name: that of its folder."""
    return run.path.resolve().name


def without_paths(config: TrainConfig) -> TrainConfig:
    """Returns the settings with the defaults of security and admin, whose values are paths here."""
    defaults = TrainConfig()
    return dataclasses.replace(config, **{name: getattr(defaults, name) for name in _PATHS})


def list_settings(config: TrainConfig) -> dict[str, str | bool | float]:
    """Returns the settings by section.name as values that every log takes; None is "none".

    Those of the sections security and admin, which are paths of this machine, are left out.
    """
    settings: dict[str, str | bool | float] = {}
    for name in setting_names():
        section, _, setting = name.partition(".")
        if section in _PATHS:
            continue
        value = getattr(getattr(config, section), setting)
        if isinstance(value, tuple):
            value = " ".join(map(str, value))
        settings[name] = NONE if value is None else value
    return settings


def find_id(run: RunDirectory, program: str) -> str:
    """Returns the run's id in a program; "" before it has one."""
    ids = _read_ids(run)
    return ids.get(program, "")


def make_id(run: RunDirectory, program: str, value: str = "") -> str:
    """Returns the run's id in a program, made at the first call and kept in RUN/tracking.json.

    Folders of the same name on two machines, or one after the other, get different ids.

    Args:
      run: its folder.
      program: such as "wandb".
      value: the id; empty: the run's name and random characters.
    """
    ids = _read_ids(run)
    if program not in ids:
        ids[program] = value or f"{name_run(run)[:40]}-{secrets.token_hex(4)}"
        write_json_atomic(run.path / _IDS_FILE, ids)
    return ids[program]


class NewVideos:
    """Finds videos of evaluations that were written since the last call."""

    def __init__(self, run: RunDirectory) -> None:
        """Leaves out those that are there."""
        self._folder = run.videos_path
        self._seen: set[Path] = set()
        list(self.take())

    def take(self) -> Iterator[tuple[Path, int]]:
        """Yields each new video and the agent steps trained of its weights."""
        for path in sorted(self._folder.glob("step-*-return-*")):
            match = _STEP.match(path.name)
            if path not in self._seen and match is not None:
                self._seen.add(path)
                yield path, int(match[1])


def _read_ids(run: RunDirectory) -> dict[str, str]:
    try:
        ids = json.loads((run.path / _IDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in ids.items()} if isinstance(ids, dict) else {}
