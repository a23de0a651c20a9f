"""The command line of impala-train and impala-server: every setting is an option.

One definition serves options and config.toml: the dataclasses of
`impala_common.config.sections`. Later sources override earlier ones:

    preset (--preset, or chosen by the environment) < --config FILE < options

With `--resume RUN` the settings start from RUN/config.toml instead; with
`--resume-if-exists` they do so when --run-dir holds a run already. Imports no torch: commands parse
their arguments first.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from impala_common.config.carried_sizes import LARGEST
from impala_common.config.help_text import HELP_ALL, make_full_help, make_short_help
from impala_common.config.presets import PRESETS, make_preset, preset_for_environment
from impala_common.config.toml_io import NONE, load_config, read_tables, setting_names
from impala_common.config.train import TrainConfig
from impala_common.errors import ConfigError
from impala_common.process.logs import LogFormat
from impala_common.run.run_directory import RunDirectory, reading

if TYPE_CHECKING:
    _PresetName = str
else:
    _PresetName = Literal[tuple(PRESETS)]


def _path_option(metavar: str, hint: str) -> object:
    """Returns a tyro annotation of an option that names a file or folder."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options for the source of settings, the run's folder and output."""

    preset: Annotated[
        _PresetName | None,
        tyro.conf.arg(
            metavar="{" + ",".join(PRESETS) + "}", help_behavior_hint="(default: chosen by --env)"
        ),
    ] = None
    """Name of the preset to start from."""
    config: Annotated[Path | None, _path_option("FILE", "(default: none)")] = None
    """TOML file of settings, as config.toml of a run; overrides the preset."""
    run_dir: Annotated[Path | None, _path_option("DIR", "(default: runs/ENV-TAG-TIME)")] = None
    """Folder of the run: settings, checkpoints, metrics, logs."""
    resume: Annotated[Path | None, _path_option("DIR", "(default: none)")] = None
    """Folder of a run to go on with, from its newest undamaged checkpoint."""
    resume_if_exists: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in --run-dir if there is one, else begin it: for whatever starts the
    same command again and again. --preset and --config count for the beginning only."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the result as one JSON object on stdout at the end."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show no progress, only warnings and errors."""
    verbose: tyro.conf.FlagCreatePairsOff[bool] = False
    """Log details."""
    log_format: LogFormat = "auto"
    """How log records look on stderr; auto: text, but JSON lines for impala-server where stderr
    is no terminal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """A parsed command line.

    Attributes:
      config: all settings.
      preset: name of the preset they started from; None for a resumed run.
      run_dir: the run's folder; None: a new one, `default_run_path`.
      resume: folder of the run to go on with, or None.
      json: whether the result is printed as JSON.
      quiet: whether only warnings and errors are shown.
      verbose: whether details are logged.
      log_format: how log records look.
      named: settings, by field, that an option or a file sets; all of them for a resumed run.
      extra: the command's own options, an instance of the dataclass passed as `extra`.
    """

    config: TrainConfig
    preset: str | None
    run_dir: Path | None
    resume: Path | None
    json: bool
    quiet: bool
    verbose: bool
    log_format: LogFormat = "auto"
    named: frozenset[str] = frozenset()
    extra: Any = None  # Any: the caller's dataclass


def parse_train_config(
    prog: str,
    argv: Sequence[str],
    description: str,
    extra: type[Any] | None = None,  # Any: a dataclass of the caller
    default_port: int | None = None,
) -> TrainArguments:
    """Parses the command line of a command that trains.

    Args:
      prog: the command's name.
      argv: its arguments, without the name.
      description: text for --help.
      extra: dataclass of options that only this command has.
      default_port: port of a new run, unless a file or an option sets it; None: the preset's.

    Raises:
      ConfigError: a setting in a file or on the command line is invalid.
      SystemExit: --help or --help-all (code 0), or options that cannot be parsed (code 2).
    """
    argv = name_environment(argv)
    if {"-h", "--help"} & set(argv):
        sys.stdout.write(make_short_help(prog, description, RunOptions, extra))
        raise SystemExit(0)
    named = _scan(argv, ("preset", "config", "env", "resume", "run-dir"))
    if any(word.replace("_", "-") == "--resume-if-exists" for word in argv):
        named = _resume_if_exists(named)
    base, preset = _make_base(named)
    if "--lockstep" in argv and "resume" not in named:
        base = _fit_to_lockstep(base, _scan(argv, ("batch-size",)).get("batch-size", ""))
    if default_port is not None and not named.keys() & {"config", "resume"}:
        transport = dataclasses.replace(base.transport, port=default_port)
        base = dataclasses.replace(base, transport=transport)
    start = f"preset {preset!r}" if preset else f"run {named['resume']}"
    fields: list[tuple[str, Any, Any]] = [("run", RunOptions, RunOptions())]
    if extra is not None:
        fields.append(("command", extra, dataclasses.MISSING))
    for field in dataclasses.fields(base):
        section = getattr(base, field.name)
        fields.append((field.name, type(section), section))
    if HELP_ALL in argv:
        sys.stdout.write(make_full_help(prog, description, start, fields))
        raise SystemExit(0)
    try:
        parsed = tyro.cli(
            _make_definition(fields),
            prog=prog,
            args=list(argv),
            description=f"{description}\n\nDefaults shown: {start}.",
            config=(tyro.conf.OmitArgPrefixes,),
            registry=_registry,
        )
        config = TrainConfig(
            **{field.name: getattr(parsed, field.name) for field in dataclasses.fields(base)}
        )
    except ConfigError as error:
        option = "--" + error.name.replace("_", "-")
        raise ConfigError(option, error.value, error.rule, error.consequence) from None
    return TrainArguments(
        config=config,
        preset=preset,
        run_dir=None if "resume" in named else parsed.run.run_dir,
        resume=Path(named["resume"]) if "resume" in named else None,
        json=parsed.run.json,
        quiet=parsed.run.quiet,
        verbose=parsed.run.verbose,
        log_format=parsed.run.log_format,
        named=_find_named(argv, named),
        extra=getattr(parsed, "command", None),
    )


def name_environment(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with `--env` in place of an environment's id as the first word.

    Raises:
      ConfigError: the environment is named twice.
    """
    if not argv or argv[0].startswith("-"):
        return list(argv)
    if "env" in _scan(argv[1:], ("env",)):
        raise ConfigError("ENV", argv[0], "given once", "--env names one, too")
    return ["--env", *argv]


def _scan(argv: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Returns the values of the options `names`, which decide the defaults of the others."""
    found = {}
    for position, argument in enumerate(argv):
        if not argument.startswith("--"):
            continue
        option, equals, value = argument[2:].partition("=")
        option = option.replace("_", "-")
        if option in names and (equals or position + 1 < len(argv)):
            found[option] = value if equals else argv[position + 1]
    return found


def _find_named(argv: Sequence[str], named: dict[str, str]) -> frozenset[str]:
    """Returns the settings that the options, or the files they start from, set."""
    settings = {name.rpartition(".")[2] for name in setting_names()}
    if "resume" in named:
        return frozenset(settings)
    options = {word[2:].partition("=")[0].replace("-", "_") for word in argv if word[:2] == "--"}
    found = options & settings
    if "config" in named:
        tables = read_tables(named["config"])
        found |= {name for table in tables.values() for name in table}
    return frozenset(found)


def _resume_if_exists(named: dict[str, str]) -> dict[str, str]:
    """Returns the options; with --resume added if the folder holds a run."""
    if "run-dir" not in named or "resume" in named:
        with_what = "--resume" if "resume" in named else "no --run-dir"
        raise ConfigError("--resume-if-exists", with_what, "used with --run-dir and no --resume")
    if not RunDirectory(named["run-dir"]).holds_run():
        return named
    return {"resume": named["run-dir"]} | ({"env": named["env"]} if "env" in named else {})


def _make_base(named: dict[str, str]) -> tuple[TrainConfig, str | None]:
    """Returns the settings to start from, and the name of the preset among them."""
    if "resume" in named:
        for option in ("preset", "config", "run-dir"):
            if option in named:
                raise ConfigError(
                    f"--{option}", named[option], "left out with --resume", "a run goes on as it is"
                )
        path = RunDirectory(named["resume"]).config_path
        with reading("--resume", Path(named["resume"])):
            is_there = path.is_file()
        if not is_there:
            raise ConfigError("--resume", named["resume"], "a run's folder", f"there is no {path}")
        base = load_config(path)
        env = base.environment.env
        if named.get("env", env) != env:
            raise ConfigError("--env", named["env"], f"{env} with --resume", "as the run began")
        return base, None
    env = named.get("env", "")
    if "config" in named and not env:
        env = load_config(named["config"]).environment.env
    preset = named.get("preset") or preset_for_environment(env)
    if preset not in PRESETS:
        raise ConfigError("--preset", preset, "one of " + ", ".join(PRESETS))
    base = make_preset(preset)
    return (load_config(named["config"], base) if "config" in named else base), preset


def _fit_to_lockstep(base: TrainConfig, batch_size: str) -> TrainConfig:
    """Returns settings to start from that allow lockstep: one actor whose message is a batch.

    `batch_size` is the option's text, or empty; options that forbid lockstep are refused later.
    """
    num_slots = int(batch_size) if batch_size.isdigit() else base.rollout.batch_size
    num_slots = min(max(num_slots, 1), LARGEST["envs_per_actor"])
    return dataclasses.replace(
        base,
        job=dataclasses.replace(base.job, num_actors=1),
        environment=dataclasses.replace(base.environment, envs_per_actor=num_slots),
        reuse=dataclasses.replace(base.reuse, max_passes=0),
        transport=dataclasses.replace(base.transport, weights_refresh="unroll"),
    )


def _make_definition(fields: list[tuple[str, Any, Any]]) -> Any:  # Any: made here
    """Returns a dataclass with these fields (name, type, default)."""
    return dataclasses.make_dataclass(
        "CommandLine",
        [(name, kind, dataclasses.field(default=default)) for name, kind, default in fields],
        kw_only=True,
        frozen=True,
    )


_registry = ConstructorRegistry()


@_registry.primitive_rule
def _make_optional_float(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[float | None] | None:
    """Spells an absent number "none", as in config.toml."""
    if info.type != float | None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"FLOAT|{NONE}",
        instance_from_str=lambda words: None if words[0].lower() == NONE else float(words[0]),
        is_instance=lambda value: value is None or isinstance(value, float | int),
        str_from_instance=lambda value: [NONE if value is None else str(value)],
    )
