"""Writes config.toml, complete and documented, and reads it.

The learner writes it into the run directory; `--config FILE` and `--resume RUN`
read it. One table per section of TrainConfig, each key under its documentation.
TOML has no null: the string "none" stands for None.
"""

from __future__ import annotations

import ast
import codecs
import dataclasses
import difflib
import functools
import inspect
import itertools
import os
import textwrap
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import tomli_w

from impala_common.config.train import TrainConfig
from impala_common.errors import ConfigError

NONE = "none"
"""The text for None."""

_WIDTH = 98
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def dump_config(config: TrainConfig) -> str:
    """Returns `config` as TOML: every setting, each preceded by its documentation."""
    parts = ["# All settings of a run. Every key may be left out: its default then holds.\n"]
    for section_field in dataclasses.fields(config):
        section = getattr(config, section_field.name)
        parts.append(f"\n[{section_field.name}]\n")
        documentation = _documentation_of(section_field.name)
        for field in dataclasses.fields(section):
            text = documentation.get(field.name, "")
            parts += [f"# {line}\n" for line in textwrap.wrap(text, _WIDTH)]
            parts.append(f"{field.name} = {_pack_value(getattr(section, field.name))}\n")
    return "".join(parts)


def load_config(path: str | os.PathLike[str], base: TrainConfig | None = None) -> TrainConfig:
    """Returns the settings of file `path`; missing ones come from `base`.

    Raises:
      ConfigError: the file is unreadable, names an unknown setting, or a value has the wrong type
        or breaks a rule.
    """
    base = TrainConfig() if base is None else base
    tables = read_tables(path)
    try:
        return unpack_config(tables, base)
    except ConfigError as error:
        consequence = "; ".join(filter(None, [error.consequence, f"read from {path}"]))
        raise ConfigError(error.name, error.value, error.rule, consequence) from None


def read_tables(path: str | os.PathLike[str]) -> dict[str, Any]:  # Any: TOML
    """Returns the content of the TOML file `path`; raises ConfigError if it is not valid TOML."""
    rule = "a readable TOML file"
    try:
        data = Path(path).read_bytes()
        if data.startswith(_BYTE_ORDER_MARKS):
            reason = "it begins with a byte order mark (BOM): save it as UTF-8 without one"
            raise ConfigError("config file", str(path), rule, reason)
        return tomllib.loads(data.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("config file", str(path), rule, str(error)) from error


def parse_config(text: str) -> TrainConfig:
    """Returns the settings in the output of `dump_config`."""
    return unpack_config(tomllib.loads(text), TrainConfig())


def unpack_config(tables: dict[str, Any], base: TrainConfig) -> TrainConfig:  # Any: TOML
    """Returns `base` with the settings of `tables`; as `load_config`."""
    sections: dict[str, Any] = {}  # Any: dataclasses of different types
    for section_name, table in tables.items():
        if section_name not in _section_types() or not isinstance(table, dict):
            raise _unknown(section_name, table)
        section = getattr(base, section_name)
        annotations = typing.get_type_hints(type(section))
        changes = {}
        for key, value in table.items():
            if key not in annotations:
                raise _unknown(f"{section_name}.{key}", value)
            changes[key] = _unpack_value(key, value, annotations[key])
        sections[section_name] = dataclasses.replace(section, **changes)
    return dataclasses.replace(base, **sections)


def setting_names() -> list[str]:
    """Returns section.key of every setting, in order."""
    return [
        f"{section.name}.{field.name}"
        for section in dataclasses.fields(TrainConfig)
        for field in dataclasses.fields(_section_types()[section.name])
    ]


def document_fields(section: type[Any]) -> dict[str, str]:
    """Returns the text under each field of a dataclass; empty without source code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(section)))
    except (OSError, TypeError):
        return {}
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    documentation = {}
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            documentation[field.target.id] = " ".join(str(text.value.value).split())
    return documentation


@functools.cache
def _section_types() -> dict[str, type[Any]]:  # Any: dataclasses of different types
    """Returns the dataclass of each section, by its name."""
    return typing.get_type_hints(TrainConfig)


@functools.cache
def _documentation_of(section_name: str) -> dict[str, str]:
    """Returns the text under each setting; cached, as parsing the source is slow."""
    return document_fields(_section_types()[section_name])


def _unknown(name: str, value: object) -> ConfigError:
    """Returns the error for a section or key that does not exist, naming the closest one."""
    section, _, key = name.rpartition(".")
    if not section:
        close = difflib.get_close_matches(key, list(_section_types()), n=1)
        close = close or [known for known in setting_names() if known.endswith(f".{key}")]
        is_section = isinstance(value, dict) or key in _section_types()
        rule = "a section that exists" if is_section else "inside a section"
    else:
        by_key = {known.partition(".")[2]: known for known in setting_names()}
        same_section = {key: known for key, known in by_key.items() if known.startswith(section)}
        keys = [key] if key in by_key else difflib.get_close_matches(key, same_section, n=1)
        keys = keys or difflib.get_close_matches(key, by_key, n=1)
        close = [by_key[key] for key in keys]
        rule = "a setting that exists"
    return ConfigError(name, value, rule, f"did you mean {close[0]}?" if close else "")


def _pack_value(value: object) -> str:
    """Returns one value as TOML."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_pack_value(item) for item in value) + "]"
    text = tomli_w.dumps({"x": NONE if value is None else value})
    return text.removeprefix("x = ").removesuffix("\n")


def _unpack_value(name: str, value: Any, annotation: Any) -> Any:  # Any: driven by annotations
    """Returns `value` as the type `annotation` says, or raises ConfigError."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        if value == NONE:
            return None
        try:
            return _unpack_value(name, value, inner)
        except ConfigError as error:
            raise ConfigError(name, value, f'{error.rule}, or "{NONE}"') from None
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(name, value, "one of " + ", ".join(map(str, arguments)))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(name, value, "a list")
        return tuple(_unpack_value(name, item, arguments[0]) for item in value)
    if annotation is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(name, value, _TYPE_NAMES[float]) from None
    # type(), not isinstance: True is an int in Python, but not in settings.
    if type(value) is not annotation:
        raise ConfigError(name, value, _TYPE_NAMES[annotation])
    return value


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string in quotes",
}
