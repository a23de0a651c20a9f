"""Run, address, settings and start time of the server, as the front end knows them."""

from __future__ import annotations

import dataclasses
import time

from impala_common.config import TrainConfig
from impala_common.run.run_directory import RunDirectory
from impala_server.front_end.learner_link import LearnerLink


@dataclasses.dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts the admin service shows.

    Attributes:
      config: the run's settings.
      run: its folder.
      link: the learner.
      address: HOST:PORT of the data plane.
      start_s: when the front end was started, by the monotonic clock.
    """

    config: TrainConfig
    run: RunDirectory
    link: LearnerLink
    address: str
    start_s: float = dataclasses.field(default_factory=time.monotonic)
