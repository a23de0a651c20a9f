"""ActorConfig: the settings of one actor, which are the options of impala-actor.

Imports neither torch nor grpc, so that --help is fast.
"""

from __future__ import annotations

import dataclasses

from impala_actor.client_config import ClientConfig
from impala_common.config.checks import (
    MAX_THREADS,
    require_between,
    require_positive,
    validate_device,
)
from impala_common.config.job import InferenceBackendName


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorConfig(ClientConfig):
    """Plays an environment with the learner's newest weights and sends it the unrolls.

    May start before the learner and leave at any time. Ends with 0 when the run has finished
    or on SIGTERM or Ctrl-C, 69 when the learner cannot be reached in time, 75 when the environment
    fails again and again or does not return, 77 when TLS or token do
    not fit, 78 when environment or network (--env, --model) cannot be made or do not fit the run.
    """

    actor_id: str = ""
    """Name of this actor, unique in the run; empty: host, process and a random part."""
    env_threads: int = 1
    """Threads of environments that are vectorised in native code."""
    device: str = "auto"
    """Device of the policy: auto (the CPU), cpu, cuda or cuda:N."""
    torch_threads: int = 1
    """CPU threads of the policy."""
    inference_backend: InferenceBackendName = "auto"
    """How the network is run: eager (torch, float32), numpy (networks for vectors), bfloat16
    (encoders), onnxruntime (extra onnx; seconds to prepare); auto: what of the first three a short
    measurement finds fastest, eager on a GPU and with lockstep."""
    compress: bool = True
    """Whether observations are compressed on the wire, where it pays."""
    max_env_failures: int = 5
    """Exceptions of the environment in a row, with no good step between them, after which the
    actor ends with code 75. After each before, all slots are made anew."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        super().__post_init__()
        require_between("--env-threads", self.env_threads, 1, MAX_THREADS)
        require_positive("--max-env-failures", self.max_env_failures)
        require_between("--torch-threads", self.torch_threads, 1, MAX_THREADS)
        validate_device(self.device)
