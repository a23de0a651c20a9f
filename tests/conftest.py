"""Settings of all tests: one thread for tensor operations, and the paths of their helpers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

# Test modules import the helpers in tests/kit, the packages `faults` and `fuzz` beside it, and
# `benchmarks`, whatever folder and import mode pytest runs with.
sys.path[:0] = [str(Path(__file__).parent / "kit"), str(Path(__file__).parent)]
sys.path.append(str(Path(__file__).parents[1]))

torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other

# Without it imageio-ffmpeg forks in Python, where gRPC's threads of other tests are.
os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
