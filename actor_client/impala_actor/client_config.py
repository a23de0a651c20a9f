"""ClientConfig: the settings that actors and evaluators have in common.

Its fields are options of `impala-actor` and `impala-evaluator`, and their loops read it. Imports
neither torch nor grpc, so that --help is fast.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Annotated, Self

import tyro

from impala_common.config.carried_sizes import LARGEST
from impala_common.config.checks import (
    require,
    require_at_least,
    require_between,
    require_held,
    require_own_model,
)
from impala_common.config.environment_options import validate_env_kwargs, validate_env_wrapper
from impala_common.config.sections import EnvironmentBackendName, EnvironmentConfig
from impala_common.process.absolute_paths import absolute_address, absolute_path
from impala_common.process.logs import LogFormat
from impala_common.rpc.addresses import require_server_address
from impala_common.rpc.security import ClientSecurity


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """Where the learner is, and how this machine makes environments and network."""

    server: str
    """Address of the learner, HOST:PORT or unix:PATH."""
    env: str
    """Environment id, such as CartPole-v1, ALE/Pong-v5, MinAtar/Breakout-v1 or module:MyEnv-v0."""
    model: Annotated[str, tyro.conf.arg(metavar="MODULE:CLASS")] = ""
    """The network of your own that the run trains, as the learner was started with it; the class
    must be here, too: code is never sent. Empty: the run trains one that comes with impala-rl."""
    num_envs: int = 0
    """Environment slots; 0: as many as the learner's configuration says (envs_per_actor)."""
    env_backend: EnvironmentBackendName = "auto"
    """How environments are vectorised."""
    env_kwargs: str = ""
    """Arguments for the environment, a JSON object such as '{"is_slippery": false}'."""
    env_wrapper: tuple[str, ...] = ()
    """Wrappers around each environment, the first innermost: module:Wrapper, such as
    minigrid.wrappers:ImgObsWrapper. With these or --env-kwargs, --env-backend auto is sync."""
    env_timeout_s: float = 600.0
    """Seconds that the environment may take for one step or reset of all slots; then the process
    ends with code 75, to be started again. 0: any time."""
    security: ClientSecurity = dataclasses.field(default_factory=ClientSecurity)
    """TLS and token."""
    connect_timeout_s: float = 0.0
    """Seconds to wait for a learner that cannot be reached before giving up; 0: for ever."""
    heartbeat_file: str = ""
    """File to beat into about once a second while the process moves, for impala-health
    --actor-file; empty: none."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Log details."""
    log_format: LogFormat = "auto"
    """How log records look on stderr; auto: text on a terminal, JSON lines elsewhere."""
    exit_with_parent: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """End when the process that started this one is gone."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_held(self, "--")
        require_server_address("--server", self.server)
        require("--env", self.env, bool(self.env), "an environment id")
        if self.model:
            require_own_model("--model", self.model)
        require_between("--num-envs", self.num_envs, 0, LARGEST["envs_per_actor"])
        validate_env_kwargs("--env-kwargs", self.env_kwargs)
        validate_env_wrapper("--env-wrapper", self.env_wrapper)
        require_at_least("--env-timeout-s", self.env_timeout_s, 0)
        require_at_least("--connect-timeout-s", self.connect_timeout_s, 0)

    def with_absolute_paths(self) -> Self:
        """Returns the same settings with every path absolute."""
        security = {
            name: absolute_path(getattr(self.security, name))
            for name in ("ca_file", "token_file", "client_cert", "client_key")
        }
        return dataclasses.replace(
            self,
            server=absolute_address(self.server),
            heartbeat_file=absolute_path(self.heartbeat_file),
            security=dataclasses.replace(self.security, **security),
        )

    @property
    def environment(self) -> EnvironmentConfig:
        """This machine's own settings of the environment; the learner has the others."""
        return EnvironmentConfig(
            env=self.env,
            env_backend=self.env_backend,
            env_kwargs=self.env_kwargs,
            env_wrapper=self.env_wrapper,
        )

    @property
    def log_level(self) -> int:
        """The lowest level that is logged."""
        return logging.INFO if self.verbose else logging.WARNING
