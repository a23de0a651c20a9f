"""The event history: complete lines after any end of the process, and marks of stored unrolls."""

from __future__ import annotations

import json
import mmap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from impala_common.codec.unrolls import UnrollDecoder
from impala_common.run.event_history import (
    EventHistory,
    marks_of,
    open_history,
    pack_rows,
    unpack_rows,
)
from impala_common.spec.specs import ModelSpec, UnrollSpec
from impala_common.testing.unrolls import (
    make_frames_spec,
    make_unrolls,
    make_vector_spec,
    pack_stacked,
)
from impala_server.learner.batch_loader import BatchLoader
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.layout import StorageLayout, UnrollOrigin

MODEL = ModelSpec("mlp", (8,), 8, 8, "none", "orthogonal", "tanh", False, 1.0)


def test_history_without_the_variable_records_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMPALA_HISTORY_DIR", raising=False)

    history = open_history("actor")
    history.add("invoke", seq=1)
    history.close()

    assert not history.is_on
    assert list(tmp_path.iterdir()) == []


def test_events_are_on_record_before_anything_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with a buffered file: a killed process took its last events with it."""
    monkeypatch.setenv("IMPALA_HISTORY_DIR", str(tmp_path / "history"))
    history = open_history("actor", actor_id="a")

    threads = [
        threading.Thread(target=lambda k=k: [history.add("invoke", seq=k) for _ in range(100)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (path,) = (tmp_path / "history").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (lines[0]["event"], lines[0]["role"], lines[0]["actor_id"]) == ("begin", "actor", "a")
    assert sorted(line["seq"] for line in lines[1:]) == [k for k in range(4) for _ in range(100)]
    history.close()
    history.add("invoke", seq=9)  # a thread that comes too late harms nobody


@pytest.mark.parametrize("make_spec", [make_vector_spec, make_frames_spec])
def test_marks_of_stored_unrolls_are_those_the_actor_made(
    make_spec: Callable[[], UnrollSpec],
) -> None:
    """Seen to fail with one flipped byte in a stored leaf, and with two columns exchanged."""
    spec = make_spec()
    unrolls = make_unrolls(spec, 4, seed=3)
    made = marks_of(unrolls, {leaf.tensor.name: leaf.rows != "none" for leaf in spec.leaves})
    layout = StorageLayout(spec, batch_size=4, num_batch_slots=1)
    buffer = memoryview(mmap.mmap(-1, layout.num_bytes))
    message = UnrollDecoder(spec, 4).decode(pack_stacked(unrolls, spec, compress=True))
    BatchSlots(layout, buffer).write(message, 0, 17, UnrollOrigin(5, 2, 30))
    loader = BatchLoader(layout, buffer, MODEL, torch.device("cpu"))

    described = loader.describe(0, has_rows=False)

    assert len(set(made)) == 4
    assert described == [[5, 2, 30, n, 17, made[n]] for n in range(4)]


def test_rows_come_back_as_they_were_trained_on() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)

    np.testing.assert_array_equal(unpack_rows(pack_rows(rows.T.copy().T), (3, 4)), rows)


def test_history_in_a_file_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").touch()

    with pytest.raises(FileExistsError):
        EventHistory(tmp_path / "one")
