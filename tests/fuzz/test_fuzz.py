"""Short runs of every fuzz target, and regression tests of earlier findings.

`make fuzz` runs them long, with coverage where atheris is installed; figures of the last such
runs are in docs/results/fuzz.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutations import FindingError, drive, run_one
from targets import TARGETS, Target, _piece

from impala_common.codec.weights import digest_of_snapshot
from impala_rl.v1 import learner_pb2

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "fuzz.json"
_SHORT_S = 1.0


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_target_takes_or_refuses_whatever_comes(name: str) -> None:
    """Seen to fail without the decoder's checks of frame_index and of finite numbers."""
    result = drive(TARGETS[name], executions=20_000, seed=7, max_s=_SHORT_S)

    assert result.executions >= 64
    assert result.accepted > 0, "nothing gets beyond the first check"


def test_driver_reports_what_breaks_a_target() -> None:
    def broken(data: bytes) -> bool:
        return b"\xff" not in data or bool([][1])

    with pytest.raises(FindingError, match="IndexError"):
        drive(Target("broken", broken, lambda: [b"abc"]), executions=100_000, seed=1)


def test_driver_runs_the_same_inputs_for_the_same_seed() -> None:
    seen: list[list[bytes]] = [[], []]
    for inputs in seen:

        def note(data: bytes, inputs: list[bytes] = inputs) -> bool:
            inputs.append(data)
            return True

        drive(Target("note", note, lambda: [b"abcdef", b"xyz"]), executions=500, seed=3)

    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 300


def test_element_type_that_numpy_does_not_know_is_refused() -> None:
    """Ended in a KeyError of the safetensors library."""
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}})
    snapshot = len(header).to_bytes(8, "little") + header.encode() + bytes(8)
    first = learner_pb2.WeightsHeader(
        total_bytes=len(snapshot), digest=digest_of_snapshot(snapshot)
    )
    messages = (
        learner_pb2.GetWeightsResponse(header=first),
        learner_pb2.GetWeightsResponse(chunk=snapshot),
    )

    assert not run_one(TARGETS["chunk_assembler"], b"\0" + b"".join(map(_piece, messages)))


def test_long_runs_are_on_record() -> None:
    figures = json.loads(RESULTS.read_text())

    assert set(figures) == set(TARGETS)
    for name, result in figures.items():
        assert result["executions"] >= 1_000_000, name
        assert result["findings"] == [], name
