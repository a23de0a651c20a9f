"""JobConfig: length of the run, device, processes; see sections.py."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, get_args

import tyro

from impala_common.config.checks import (
    LARGEST_WHOLE,
    MAX_THREADS,
    require_at_least,
    require_between,
    require_one_of,
    validate_device,
)

InferenceBackendName = Literal["auto", "eager", "numpy", "bfloat16", "onnxruntime"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobConfig:
    """The job as a whole."""

    total_steps: Annotated[int, tyro.conf.arg(aliases=["--num-train-steps"])] = 1_000_000
    """Agent steps after which the run ends."""
    num_actors: int = 2
    """Actor processes of impala-train; unless set, fitted to cores and memory."""
    seed: int = 1
    """Seed of network, actors, environment slots and sampling."""
    tag: str = "default"
    """Name of the run, part of its default folder's name."""
    init_model_path: str = ""
    """Checkpoint folder of the initial weights; empty: drawn from the seed."""
    device: str = "auto"
    """Learner's device: auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of the learner's encoder; all else is float32. auto: bfloat16 for nature_cnn
    where faster."""
    learner_threads: int = 0
    """CPU threads of the learner's tensor operations; 0: chosen for the machine."""
    env_threads: int = 0
    """Threads that step one local actor's emulators; 0: impala-train chooses."""
    inference_backend: InferenceBackendName = "auto"
    """How actors run the network: eager (torch), numpy (MLP), bfloat16 (encoders), onnxruntime
    (extra onnx); auto: the fastest of the first three. Lockstep uses eager."""
    lockstep: bool = False
    """Slow deterministic mode: one actor waits for each update."""
    eval_episodes: int = 100
    """Episodes of impala-train's final evaluation; 0: none."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_between("total_steps", self.total_steps, 1, 10**15)
        require_between("num_actors", self.num_actors, 0, 1024)
        require_between("seed", self.seed, 0, LARGEST_WHOLE)
        require_between("learner_threads", self.learner_threads, 0, MAX_THREADS)
        require_between("env_threads", self.env_threads, 0, MAX_THREADS)
        require_at_least("eval_episodes", self.eval_episodes, 0)
        require_one_of("inference_backend", self.inference_backend, get_args(InferenceBackendName))
        require_one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        validate_device(self.device)
