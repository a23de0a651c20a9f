"""Converts the class's arguments to a TrainConfig.

Priority for each setting: a given argument; `config`; the seed's default; the default of
TrainConfig. A TrainConfig as `config` has all settings; a mapping or a TOML file has those it
names. Pure values.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from impala_agent.argument_types import as_kind
from impala_common.config import TrainConfig
from impala_common.config.toml_io import NONE, load_config, unpack_config
from impala_common.errors import ConfigError

Value = TypeVar("Value")
ConfigLike = TrainConfig | Mapping[str, Mapping[str, Any]] | str | os.PathLike[str]  # Any: settings
"""Types of `config=`: all settings, a table of sections, or a TOML file's path."""


class _SeedDefault:
    """Marks an argument that was not given; its repr is the seed's default."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        """Returns the repr of the default."""
        return repr(self.value)


def seed_default(value: Value) -> Value:
    """Returns a default that differs from the same value given by a caller."""
    return cast(Value, _SeedDefault(value))


_PLACES: Final = {
    "tag": ("job", "tag"),
    "seed": ("job", "seed"),
    "device": ("job", "device"),
    "num_steps": ("rollout", "unroll_length"),
    "num_actors": ("job", "num_actors"),
    "num_learners": ("rollout", "num_learners"),
    "num_storages": ("rollout", "num_storages"),
    "feature_dim": ("model", "feature_dim"),
    "batch_size": ("rollout", "batch_size"),
    "lr": ("optimizer", "learning_rate"),
    "eps": ("optimizer", "eps"),
    "hidden_dim": ("model", "hidden_dim"),
    "use_lstm": ("model", "recurrence"),
    "ent_coef": ("loss", "entropy_cost"),
    "baseline_coef": ("loss", "baseline_cost"),
    "max_grad_norm": ("optimizer", "max_grad_norm"),
    "discount": ("loss", "discount"),
    "network_init_method": ("model", "init_method"),
    "envs_per_actor": ("environment", "envs_per_actor"),
}
"""Argument -> section and name of the setting."""

_BASE: Final = TrainConfig()


def make_train_config(arguments: Mapping[str, object], config: ConfigLike | None) -> TrainConfig:
    """Returns the settings of a run.

    Args:
      arguments: the constructor's values by name of the argument; `init_fn` is another name of
        network_init_method.
      config: see the module.

    Raises:
      ConfigError: a value breaks a rule, or two arguments contradict each other.
    """
    given = {name: _as_setting(name, value) for name, value in arguments.items() if is_given(value)}
    defaults = {
        name: value.value for name, value in arguments.items() if isinstance(value, _SeedDefault)
    }
    given, defaults = _join_initialisations(given), _join_initialisations(defaults)
    base = _replace(TrainConfig(), defaults)
    base = _set(base, "transport", port=0)
    says_hidden_sizes = False
    if isinstance(config, TrainConfig):
        base, says_hidden_sizes = config, True
        if config.transport.port == type(config.transport)().port:  # the default
            base = _set(base, "transport", port=0)
    elif isinstance(config, Mapping):
        base = unpack_config(_as_tables(config), base)
        says_hidden_sizes = "hidden_sizes" in config.get("model", {})
    elif isinstance(config, str | os.PathLike):
        base = load_config(config, base)
        tables = tomllib.loads(Path(config).read_text(encoding="utf-8"))
        says_hidden_sizes = "hidden_sizes" in tables.get("model", {})
    elif config is not None:
        raise ConfigError("config", config, "a TrainConfig, a mapping or a TOML file's path")
    base = _replace(base, given)
    if not says_hidden_sizes:  # for vectors: feature_dim is the encoder's width, hidden_dim next
        base = _set(base, "model", hidden_sizes=(base.model.feature_dim,))
    if base.transport.front_end != "process":
        raise ConfigError(
            "front_end", base.transport.front_end, "process", "the class starts processes"
        )
    return base


def replace_settings(config: TrainConfig, **settings: dict[str, Any]) -> TrainConfig:
    """Returns `config` with settings changed, by section: `job={"total_steps": 5}`."""
    sections = {
        section: dataclasses.replace(getattr(config, section), **changes)
        for section, changes in settings.items()
    }
    return dataclasses.replace(config, **sections)


def is_given(value: object) -> bool:
    """Returns whether an argument was given, not left at the seed's default."""
    return not isinstance(value, _SeedDefault)


def _join_initialisations(values: dict[str, Any]) -> dict[str, Any]:
    """Returns `values` with init_fn under its other name."""
    values = dict(values)
    init_fn = values.pop("init_fn", None)
    if init_fn is None:
        return values
    other = values.setdefault("network_init_method", init_fn)
    if other != init_fn:
        raise ConfigError("init_fn", init_fn, f"the same as network_init_method ({other!r})")
    return values


def _as_setting(name: str, value: object) -> object:
    """Returns a given argument as the plain value of its setting's type."""
    if name == "init_fn" and value is None:
        return None
    if name == "use_lstm":
        return as_kind(name, value, bool)
    section, setting = _PLACES["network_init_method" if name == "init_fn" else name]
    return as_kind(name, value, type(getattr(getattr(_BASE, section), setting)))


def _replace(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Returns `config` with arguments set; errors name the argument in place of the setting."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, setting = _PLACES[name]
        if name == "use_lstm":
            value = "lstm" if value else "none"
        sections.setdefault(section, {})[setting] = value
    try:
        return replace_settings(config, **sections)
    except ConfigError as error:
        named = {_PLACES[name][1]: name for name in values}
        name = named.get(error.name, error.name)
        raise ConfigError(name, error.value, error.rule, error.consequence) from None


def _set(config: TrainConfig, section: str, **changes: Any) -> TrainConfig:
    return replace_settings(config, **{section: changes})


def _as_tables(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a mapping of Python values in the form of TOML tables."""
    return {
        section: (
            {key: _as_toml(value) for key, value in table.items()}
            if isinstance(table, Mapping)
            else table
        )
        for section, table in config.items()
    }


def _as_toml(value: Any) -> Any:
    if value is None:
        return NONE
    return list(value) if isinstance(value, tuple) else value
