"""The product's own front-end process with a stand-in for the learner, which trains on nothing.

The stand-in announces a run as the learner does, gives every full slot back at once, and
publishes weights of any size. So the front end is what is measured: gRPC, checks, unpacking and
the copy into rollout storage, in a process of its own as in `impala-server`.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import numpy as np
import psutil

from impala_common.codec.weights import SnapshotLayout
from impala_common.config import (
    CheckpointConfig,
    JobConfig,
    RolloutConfig,
    TrainConfig,
    TransportConfig,
)
from impala_common.config.toml_io import dump_config
from impala_common.errors import QueueClosedError
from impala_common.models.registry import resolve_model_spec
from impala_common.run.run_directory import RunDirectory
from impala_common.spec.specs import EnvironmentSpec, TensorSpec, UnrollSpec
from impala_server.children import Child, make_child_specs
from impala_server.messages import Bound, Define, Ready
from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.layout import StorageLayout
from impala_server.storage.process_ends import STORAGE, WEIGHTS, ProcessEnds, make_ends
from impala_server.storage.weights_block import WeightsWriter, weights_block_bytes

_START_S = 60.0
_END_S = 10.0
_POLL_S = 0.2


def make_config(
    unroll_length: int, batch_size: int, num_batches: int = 3, max_actors: int = 1024
) -> TrainConfig:
    """Returns settings of a learner that is measured: any free port, no files, no last step."""
    return TrainConfig(
        job=JobConfig(total_steps=1_000_000_000_000),
        rollout=RolloutConfig(
            unroll_length=unroll_length,
            batch_size=batch_size,
            num_storages=num_batches * batch_size,
        ),
        transport=TransportConfig(port=0, max_actors=max_actors),
        checkpoint=CheckpointConfig(tensorboard=False),
    )


class SomeLearner(Protocol):
    """What holds the learner's ends of the pipes, in place of the learner process."""

    def close(self) -> None:
        """Ends it: the front end sees its pipes close."""


_Learner = TypeVar("_Learner", bound=SomeLearner)


class FrontEndAlone(Generic[_Learner]):
    """A front end that serves; stopped at the end of the context.

    Attributes:
      learner: what holds the learner's ends.
      address: of the service for actors.
      prometheus_address: HOST:PORT of the metrics; None where the settings ask for none.
      run_path: folder of the run, by which impala-admin finds it.
      process: the front end.
    """

    def __init__(
        self, config: TrainConfig, make_learner: Callable[[ProcessEnds, Path], _Learner]
    ) -> None:
        """Starts it.

        Args:
          config: `make_config`'s.
          make_learner: takes over the learner's ends, and is told the run's folder.
        """
        self._folder = tempfile.TemporaryDirectory()
        run = RunDirectory(self._folder.name)
        run.create()
        settings = dump_config(config)
        run.config_path.write_text(settings)
        ends, pipes = make_ends()
        self._unused = pipes["learner"]  # its end would tell the front end that the learner died
        self._pipe = pipes["front_end"]
        self.learner = make_learner(ends["learner"], run.path)
        spec = make_child_specs(config, run, None)["front_end"]
        self._child = Child("front_end", spec, self._pipe)
        self._child.start_process(run.path, ends["front_end"], ("ERROR", "text"), None, settings)
        ends["front_end"].close_pipes()
        bound = _wait_until_bound(self._pipe)
        self.address, self.prometheus_address = bound.address, bound.prometheus
        self.run_path = run.path
        self.process = psutil.Process(self._child.pid)

    def __enter__(self) -> FrontEndAlone[_Learner]:
        """It serves already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops it."""
        self.learner.close()  # the front end ends with its learner
        self._child.join(_END_S)
        self._child.close_pipe()
        self._unused.close()
        self._folder.cleanup()

    @property
    def cpu_s(self) -> float:
        """CPU seconds it has taken, user and system."""
        return float(sum(self.process.cpu_times()[:2]))

    @property
    def own_bytes(self) -> int:
        """Memory that is its own: what it shares with the learner does not count."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(
            int(line.split()[1]) << 10
            for line in status.splitlines()
            if line.startswith("RssAnon:")
        )


def stand_in(config: TrainConfig, weights_bytes: int = 1 << 16) -> FrontEndAlone[StandInLearner]:
    """Returns a front end whose learner is a stand-in that publishes weights of that size."""
    return FrontEndAlone(
        config, lambda ends, unused_path: StandInLearner(ends, config, weights_bytes)
    )


def _wait_until_bound(pipe: ControlPipe) -> Bound:
    message = pipe.receive(_START_S)
    if not isinstance(message, Bound):
        raise SystemExit(f"the front end did not start: {message}")
    return message


class StandInLearner:
    """The learner's ends of the pipes, served by a thread."""

    def __init__(self, ends: ProcessEnds, config: TrainConfig, weights_bytes: int) -> None:
        """Starts the thread; the run takes shape after the first actor."""
        self._ends = ends
        self._config = config
        self._weights_bytes = weights_bytes
        self._writer: WeightsWriter | None = None
        self._version = 0
        self._is_closing = False
        self.num_slots_taken = 0
        self._thread = threading.Thread(target=self._run, name="impala-stand-in")
        self._thread.start()

    def publish(self) -> int:
        """Publishes a new version of the weights, of other numbers, and returns it."""
        assert self._writer is not None
        self._version += 1
        target = self._writer.begin()
        self._writer.buffers[target]["weights"][:] = self._version
        self._writer.commit(target, self._version, 0)
        return self._version

    def close(self) -> None:
        """Ends the thread and closes the pipes."""
        self._is_closing = True
        self._thread.join()
        self._ends.close_pipes()
        self._ends.close_blocks()

    def _run(self) -> None:
        control, handoff = self._ends.controls["front_end"], self._ends.handoffs["front_end"]
        while not self._is_closing:
            try:
                connection.wait([control.fileno(), handoff.fileno()], _POLL_S)
                handoff.frames.flush()
                while (full := handoff.receive_full(0.0)) is not None:
                    self.num_slots_taken += 1
                    handoff.send_free(full.slot)
                for message in control.receive_all():
                    if isinstance(message, Define):
                        self._define(message.environment)
            except QueueClosedError:
                return

    def _define(self, environment: EnvironmentSpec) -> None:
        rollout = self._config.rollout
        unroll = UnrollSpec(rollout.unroll_length, environment)
        layout = StorageLayout(unroll, rollout.batch_size, rollout.num_storage_slots)
        self._ends.blocks[STORAGE].resize(layout.num_bytes)
        snapshot = SnapshotLayout({"weights": np.zeros(self._weights_bytes // 4, np.float32)})
        self._ends.blocks[WEIGHTS].resize(weights_block_bytes(snapshot.num_bytes))
        self._writer = WeightsWriter(self._ends.blocks[WEIGHTS].map(), snapshot)
        self.publish()
        model = resolve_model_spec(self._config.model, environment)
        ready = Ready(
            learner_run_id=1,
            learner_life=0,
            environment=environment,
            model=model,
            agent_state=(),
            weights=(TensorSpec("weights", (self._weights_bytes // 4,), "float32"),),
            max_policy_lag=0,
        )
        self._ends.controls["front_end"].send(ready)
