"""Rules of --env-kwargs and --env-wrapper, shared by all commands."""

from __future__ import annotations

import json

from impala_common.config.checks import require
from impala_common.errors import ConfigError


def validate_env_kwargs(name: str, value: str) -> None:
    """Raises ConfigError unless `value` is empty or a JSON object."""
    rule = "a JSON object in quotes, such as '{\"is_slippery\": false}', or empty"
    if not value:
        return
    try:
        is_object = isinstance(json.loads(value), dict)
    except ValueError as error:
        raise ConfigError(name, value, rule, str(error)) from error
    require(name, value, is_object, rule)


def validate_env_wrapper(name: str, value: tuple[str, ...]) -> None:
    """Raises ConfigError unless all of `value` have the form module:Wrapper."""
    for wrapper in value:
        module, _, attribute = wrapper.partition(":")
        is_name = bool(module and attribute and ":" not in attribute)
        require(name, wrapper, is_name, "module:Wrapper, such as minigrid.wrappers:ImgObsWrapper")
