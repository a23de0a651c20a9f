"""Metrics on disk, and the log lines of commands."""

from __future__ import annotations

import json
import logging
import math
import os
import struct
from pathlib import Path
from typing import Any, NoReturn

import pytest

from impala_common.process import logs
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory
from impala_server.tracking import metrics_writer
from impala_server.tracking.metrics_writer import MetricsWriter


def lines_of(run: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


def events_of(run: RunDirectory) -> list[Any]:
    """Returns all TensorBoard events: records of length, checksum, data, checksum."""
    from tensorboardX.proto import event_pb2

    events = []
    for path in sorted(run.tensorboard_path.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path)
    run.create()
    return run


def test_write_appends_one_line_at_once_with_null_for_what_is_not_finite(
    run: RunDirectory,
) -> None:
    writer = MetricsWriter(run, tensorboard=False)

    writer.write({metrics.LOSS_TOTAL: 1.5, metrics.KL: math.nan, metrics.RHO_MEAN: math.inf}, 10)
    writer.write({metrics.LOSS_TOTAL: None, metrics.STEPS: 999}, 20)

    assert lines_of(run) == [
        {"steps": 10, "loss/total": 1.5, "learner/kl": None, "learner/rho_mean": None},
        {"steps": 20, "loss/total": None},
    ]
    assert "NaN" not in run.metrics_path.read_text()
    writer.close()
    writer.close()


def test_write_to_tensorboard_has_steps_as_x_axis_and_no_nan(run: RunDirectory) -> None:
    writer = MetricsWriter(run, tensorboard=True)
    writer.write({metrics.LOSS_TOTAL: 1.5, metrics.KL: math.nan}, 10)
    writer.write({metrics.LOSS_TOTAL: 2.5}, 2**40)
    writer.close()

    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in events_of(run)
        for value in event.summary.value
    ]
    assert scalars == [(10, "loss/total", 1.5), (2**40, "loss/total", 2.5)]


def test_truncate_forgets_what_is_beyond_the_checkpoint(run: RunDirectory) -> None:
    """Seen to fail with `<` for `<=`, and with purge_step = step."""
    writer = MetricsWriter(run, tensorboard=True)
    for step in (10, 20, 30):
        writer.write({metrics.LOSS_TOTAL: 1.0}, step)
    writer.close()

    writer = MetricsWriter(run, tensorboard=True)
    writer.truncate_after(20)
    writer.write({metrics.LOSS_TOTAL: 2.0}, 25)
    writer.close()

    assert [(line["steps"], line["loss/total"]) for line in lines_of(run)] == [
        (10, 1.0),
        (20, 1.0),
        (25, 2.0),
    ]
    assert len(list(run.tensorboard_path.iterdir())) == 2
    # What TensorBoard takes as "a restart: forget steps from here on".
    starts = [event.step for event in events_of(run) if event.HasField("session_log")]
    assert starts == [21]


def test_truncate_of_new_run_and_after_write(run: RunDirectory) -> None:
    writer = MetricsWriter(run, tensorboard=False)
    writer.truncate_after(0)
    writer.write({}, 1)

    assert lines_of(run) == [{"steps": 1}]
    with pytest.raises(AssertionError):
        writer.truncate_after(0)
    writer.close()


def test_write_after_a_crash_in_the_middle_of_a_line_starts_a_new_one(run: RunDirectory) -> None:
    """Seen to fail with lines appended wherever the file ends."""
    run.metrics_path.write_text('{"steps": 1}\n{"steps": 2, "lo')
    writer = MetricsWriter(run, tensorboard=False)

    writer.write({}, 3)
    writer.close()

    assert [line["steps"] for line in metrics.read_metrics(run.metrics_path)] == [1, 3]
    writer = MetricsWriter(run, tensorboard=False)
    writer.truncate_after(1)
    assert run.metrics_path.read_text() == '{"steps": 1}\n'


@pytest.mark.parametrize("num_taken", [None, 5], ids=["nothing taken", "half a line taken"])
def test_write_when_disk_is_full_warns_once_and_goes_on(
    run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    num_taken: int | None,
) -> None:
    writer = MetricsWriter(run, tensorboard=False)
    writer.write({}, 1)
    write = os.write

    def write_until_full(descriptor: int, data: bytes) -> int:
        if num_taken is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:num_taken])

    monkeypatch.setattr(os, "write", write_until_full)
    writer.write({}, 2)
    writer.write({}, 3)
    monkeypatch.undo()
    writer.write({}, 4)
    writer.close()

    assert [line["steps"] for line in metrics.read_metrics(run.metrics_path)] == [1, 4]
    assert len(caplog.records) == 1
    assert "step 2 could not be written" in caplog.text


def test_tensorboard_begins_once_the_disk_has_room(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: a disk that was full at the first line left TensorBoard off for the run."""
    event_file = metrics_writer.EventFile

    def fail(*unused: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    writer = MetricsWriter(run, tensorboard=True)
    monkeypatch.setattr(metrics_writer, "EventFile", fail)
    writer.write({metrics.LOSS_TOTAL: 1.0}, 1)
    monkeypatch.setattr(metrics_writer, "EventFile", event_file)
    writer.write({metrics.LOSS_TOTAL: 2.0}, 2)
    writer.close()

    assert list(run.tensorboard_path.iterdir())


def test_read_metrics_leaves_out_what_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\n[1]\n"x"\n{"loss": 1}\n{"steps": "x"}\n\xff\n{"steps": 7}\n')

    assert metrics.read_metrics(path) == [{"steps": 7}]


def test_names_of_metrics_are_unique_and_of_the_glossary() -> None:
    assert len(set(metrics.ALL_METRICS)) == len(metrics.ALL_METRICS)
    assert {"steps", "learner/policy_lag_mean", "queue/batch_wait_s"} <= set(metrics.ALL_METRICS)
    words = {word for name in metrics.ALL_METRICS for word in name.replace("/", "_").split("_")}
    assert not words & {"rollout", "client", "done", "params", "frames"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("actor-0", "actor-0"),
        ("a\n12:00:00 info forged", "a\\n12:00:00 info forged"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("back\\slash", "back\\\\slash"),
        ("\u202eflip \x00 ü", "\\u202eflip \\x00 ü"),
        ("x" * 1000, "x" * 200 + "... (1000 characters)"),
        ("\n" * 150, "\\n" * 100 + "... (150 characters)"),
        (b"\n", "b'\\\\n'"),
    ],
)
def test_printable_is_one_short_harmless_line(text: object, expected: str) -> None:
    assert logs.printable(text) == expected


def test_configure_logging_writes_plain_lines_to_the_current_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.configure_logging("INFO", "actor-%d")
        logs.configure_logging(logging.INFO, "actor-%d")
        logging.getLogger("x").info("hello %s", "you")
        logging.getLogger("x").debug("not shown")

        captured = capsys.readouterr()
        stamp, _, rest = captured.err.partition(" ")
        assert rest == "info actor-%d hello you\n"
        assert len(stamp) == len("12:00:00")
        assert captured.out == ""
    finally:
        root.handlers[:] = before
        root.setLevel(level)
