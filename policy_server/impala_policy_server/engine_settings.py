"""EngineSettings: settings of the policy engine, whatever its source."""

from __future__ import annotations

import dataclasses

from impala_common.config.job import InferenceBackendName


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Settings of the engine.

    Attributes:
      max_slots: slots of all clients at a time.
      max_batch_size: rows of one call of the network.
      device: of the network.
      inference_backend: how it is run.
      model: the own network this server was started with; "" for none.
    """

    max_slots: int = 4096
    max_batch_size: int = 256
    device: str = "cpu"
    inference_backend: InferenceBackendName = "auto"
    model: str = ""
