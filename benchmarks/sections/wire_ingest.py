"""Unrolls into rollout storage: the product's front end beside a plain TCP socket.

Used by the section `wire` and by `growth`. Windows of both are taken in turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rigs.front_end_alone import FrontEndAlone, make_config, stand_in
from benchmarks.rigs.raw_socket import RawSockets
from benchmarks.rigs.synthetic_actors import SyntheticActors
from benchmarks.rigs.unroll_source import UnrollSource
from benchmarks.suite.section import Json, summarise

_WARM_UP_S = 0.5


@dataclasses.dataclass(frozen=True)
class IngestWindow:
    """What one window of ingest took.

    Attributes:
      unrolls_per_s: accepted.
      server_ms: CPU milliseconds of the front end for each unroll.
      client_ms: of the synthetic actors.
      server_cores: how many cores the front end kept busy.
    """

    unrolls_per_s: float
    server_ms: float
    client_ms: float
    server_cores: float


def measure_window(
    server: FrontEndAlone[Any],
    actors: SyntheticActors,
    window_s: float,
    num_actors: int = 0,
) -> IngestWindow:
    """Lets `num_actors` of the actors send for a window; 0: all."""
    with actors.at_work(_WARM_UP_S, num_actors):
        before, server_before_s = actors.totals(), server.cpu_s
        time.sleep(window_s)
        after, server_after_s = actors.totals(), server.cpu_s
    num_unrolls = after.num_unrolls - before.num_unrolls
    if num_unrolls == 0:
        raise SystemExit("no unroll arrived within a window")
    wall_s, server_s = after.time_s - before.time_s, server_after_s - server_before_s
    return IngestWindow(
        num_unrolls / wall_s,
        1e3 * server_s / num_unrolls,
        1e3 * (after.cpu_s - before.cpu_s) / num_unrolls,
        server_s / wall_s,
    )


def measure_raw_window(sockets: RawSockets, window_s: float) -> float:
    """Returns messages per second through plain sockets."""
    with sockets.at_work(_WARM_UP_S):
        before, start_s = sockets.num_messages(), time.monotonic()
        time.sleep(window_s)
        after, end_s = sockets.num_messages(), time.monotonic()
    return (after - before) / (end_s - start_s)


def measure_ingest(
    source: UnrollSource,
    num_streams: int,
    num_windows: int,
    window_s: float,
    batch_size: int = 16,
    packs_each: bool = True,
    compress: bool = True,
) -> Json:
    """Returns rates and costs of `num_streams` synthetic actors, and of as many raw sockets.

    A raw message has the bytes of an unroll with its frames stacked, uncompressed.
    """
    unroll_bytes = source.spec.num_bytes
    raw, windows = [], []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source.save(folder)
        config = make_config(source.spec.unroll_length, batch_size)
        server = stack.enter_context(stand_in(config))
        actors = stack.enter_context(
            SyntheticActors(
                server.address, folder, num_streams, packs_each=packs_each, compress=compress
            )
        )
        sockets = stack.enter_context(RawSockets(num_streams, unroll_bytes, listener_sends=False))
        for _ in range(num_windows):
            raw.append(measure_raw_window(sockets, window_s))
            windows.append(measure_window(server, actors, window_s))
    ratios = [w.unrolls_per_s / r for w, r in zip(windows, raw, strict=True)]
    unroll_gb = unroll_bytes / 1e9
    server_ms = [window.server_ms for window in windows]
    client_ms = [window.client_ms for window in windows]
    return {
        "streams": num_streams,
        "unrolls_per_message": source.num_slots,
        "unroll_bytes": unroll_bytes,
        "unrolls_per_s": summarise([window.unrolls_per_s for window in windows]),
        "server_ms_per_unroll": summarise(server_ms),
        "client_ms_per_unroll": summarise(client_ms),
        "server_cores": statistics.median(window.server_cores for window in windows),
        "raw_unrolls_per_s": summarise(raw),
        "ratio_to_raw": summarise(ratios),
        "server_s_per_gb": statistics.median(server_ms) / 1e3 / unroll_gb,
        "client_s_per_gb": statistics.median(client_ms) / 1e3 / unroll_gb,
    }
