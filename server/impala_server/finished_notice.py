"""Tells actors that the run has finished, for a while after its end: then they leave by themselves.

An actor waits for a learner that it cannot reach, so an actor that starts after the end would wait
for ever. Used by impala-server with --finished-notice-s, on its main thread: a front end without a
learner behind it, on a thread of this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable

from impala_common.config import TrainConfig
from impala_common.errors import ImpalaError, QueueClosedError, rebuild_error
from impala_common.run.run_directory import RunDirectory, write_text_atomic
from impala_server.messages import Bound, Drain, Failed, LearnerStatus, StatusNews
from impala_server.storage.process_ends import make_ends

_POLL_S = 0.5
_JOIN_S = 10.0


def give_notice(
    config: TrainConfig, run: RunDirectory, duration_s: float, is_stop_wanted: Callable[[], bool]
) -> None:
    """Answers actors for `duration_s`, or until `is_stop_wanted`.

    Args:
      config: the run's settings: address, TLS, tokens.
      run: its folder, whose lock the caller holds.
      duration_s: how long.
      is_stop_wanted: asked twice a second.

    Raises:
      ImpalaError: the port is taken, or TLS files cannot be used.
    """
    from impala_server.front_end.process import front_end_main

    # No metrics endpoint for Prometheus: without a learner it would show zeros.
    checkpoint = dataclasses.replace(config.checkpoint, prometheus_port=0)
    config = dataclasses.replace(config, checkpoint=checkpoint)
    ends, pipes = make_ends()
    learner, front_end, to_front_end = ends["learner"], ends["front_end"], pipes["front_end"]
    control = learner.controls["front_end"]
    thread = threading.Thread(
        target=front_end_main, args=(config, run, front_end), name="impala-finished-notice"
    )
    thread.start()
    try:
        control.send(Drain("finished", is_notice=True))
        deadline_s = time.monotonic() + duration_s
        while time.monotonic() < deadline_s and thread.is_alive() and not is_stop_wanted():
            control.send_if_room(StatusNews(LearnerStatus(state="STOPPED")))
            match to_front_end.receive(_POLL_S):
                case Failed(reason, text):
                    raise rebuild_error(reason, text)
                case Bound(address):
                    with run.written():
                        write_text_atomic(run.address_path, address + "\n")
    except QueueClosedError as error:
        raise ImpalaError("the front end ended while it told actors of the run's end") from error
    finally:
        learner.close_pipes()
        thread.join(_JOIN_S)
        with contextlib.suppress(OSError):
            run.address_path.unlink(missing_ok=True)
        learner.close_blocks()
