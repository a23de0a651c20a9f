"""A fleet: hundreds of actors in a process, which speak the real protocol and never think.

Each has a connection of its own, registers, keeps its stream of unrolls open, sends a message at
an interval of its own and takes its verdict; all share one event loop, so that a thousand fit into
two processes. `Fleet` is the benchmark's side; this module run as a process is a share of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rigs.fleet_actor import FleetActor
from benchmarks.rigs.unroll_source import UnrollSource
from benchmarks.rigs.worker_process import WorkerGroup, serve
from benchmarks.suite.section import Json

_MODULE = "benchmarks.rigs.fleet"
_WAIT_S = 170.0


class Traffic(NamedTuple):
    """What a fleet did in a window.

    Attributes:
      num_messages: that were accepted.
      num_unrolls: in them.
      verdicts_ms: from a message to its verdict: p50, p99, largest.
      cpu_s: CPU seconds of its processes.
      num_left: actors that left and came back.
      failures: what went wrong, and how often.
    """

    num_messages: int
    num_unrolls: int
    verdicts_ms: tuple[float, float, float]
    cpu_s: float
    num_left: int
    failures: dict[str, int]


class Fleet(WorkerGroup):
    """Any number of actors, spread over a few processes; they begin unregistered."""

    def __init__(self, address: str, source: Path, num_actors: int, num_processes: int = 2) -> None:
        """Starts the processes."""
        common = {"address": address, "source": str(source)}
        super().__init__(
            _MODULE,
            num_actors,
            num_processes,
            lambda k, share: {**common, "name": f"fleet-{k}", "num_actors": share},
        )

    def join(self) -> list[float]:
        """Lets all register and open their streams at once; returns the seconds each took."""
        return [one for answer in self.ask("join") for one in answer["taken_s"]]

    def fetch(self) -> tuple[list[float], int]:
        """Lets all fetch the newest weights at once.

        Returns:
          The seconds each took, and how many fetches broke off and were tried again.
        """
        answers = self.ask("fetch")
        taken_s = [one for answer in answers for one in answer["taken_s"]]
        return taken_s, sum(answer["num_failed"] for answer in answers)

    def send(self, messages_per_s: float, window_s: float, leavers_per_s: float = 0.0) -> Traffic:
        """Lets all send for a window.

        Args:
          messages_per_s: of all actors together; each waits for its verdict before the next.
          window_s: length of the window.
          leavers_per_s: actors that leave and come back at once; every second one says goodbye,
            the others close their connection.
        """
        cpu_s = self.cpu_s
        share = 1 / self.num_workers
        answers = self.ask(
            "send",
            messages_per_s=messages_per_s * share,
            window_s=window_s,
            leavers_per_s=leavers_per_s * share,
        )
        taken_ms = np.concatenate([np.asarray(answer["verdicts_ms"]) for answer in answers])
        failures: dict[str, int] = {}
        for answer in answers:
            for text, count in answer["failures"].items():
                failures[text] = failures.get(text, 0) + count
        p50, p99, top = np.percentile(taken_ms, [50, 99, 100]) if len(taken_ms) else (0.0, 0.0, 0.0)
        return Traffic(
            num_messages=sum(answer["num_messages"] for answer in answers),
            num_unrolls=sum(answer["num_unrolls"] for answer in answers),
            verdicts_ms=(float(p50), float(p99), float(top)),
            cpu_s=self.cpu_s - cpu_s,
            num_left=sum(answer["num_left"] for answer in answers),
            failures=failures,
        )


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What one process is told."""

    address: str
    source: str
    name: str
    num_actors: int


class _Share:
    """The actors of this process, on one event loop in a thread."""

    def __init__(self, settings: _Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet")
        self._thread.start()
        source = UnrollSource.load(Path(settings.source))
        self._actors = [
            FleetActor(settings.address, f"{settings.name}-{k}", source)
            for k in range(settings.num_actors)
        ]

    def answer(self, request: Json) -> Json:
        """Does what the benchmark asks for."""
        kind = request.pop("kind")
        if kind == "join":
            return self._await(self._all("join"))
        if kind == "fetch":
            return self._await(self._all("fetch"))
        return self._await(self._send(**request))

    def close(self) -> None:
        """Ends all of them."""
        self._await(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _await(self, work: Coroutine[Any, Any, Json]) -> Json:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _all(self, method: str) -> Json:
        taken_s = await asyncio.gather(*(getattr(actor, method)() for actor in self._actors))
        num_failed = sum(len(actor.take_counts()[1]) for actor in self._actors)
        return {"taken_s": taken_s, "num_failed": num_failed}

    async def _close(self) -> Json:
        await asyncio.gather(*(actor.leave(is_orderly=True) for actor in self._actors))
        return {}

    async def _send(self, messages_per_s: float, window_s: float, leavers_per_s: float) -> Json:
        end_s = self._loop.time() + window_s
        interval_s = len(self._actors) / messages_per_s
        sending = [
            asyncio.create_task(actor.send_until(end_s, interval_s, k / len(self._actors)))
            for k, actor in enumerate(self._actors)
        ]
        num_left = 0
        while leavers_per_s and self._loop.time() + 1 / leavers_per_s < end_s:
            await asyncio.sleep(1 / leavers_per_s)
            self._actors[(7 * num_left) % len(self._actors)].leave_soon(num_left % 2 == 0)
            num_left += 1
        await asyncio.gather(*sending)
        counted = [actor.take_counts() for actor in self._actors]
        failures: dict[str, int] = {}
        for _, texts in counted:
            for text in texts:
                failures[text] = failures.get(text, 0) + 1
        verdicts_ms = [taken for taken_ms, _ in counted for taken in taken_ms]
        return {
            "num_messages": len(verdicts_ms),
            "num_unrolls": len(verdicts_ms) * self._actors[0].num_slots,
            "verdicts_ms": verdicts_ms,
            "num_left": num_left,
            "failures": failures,
        }


def main() -> None:
    """Body of one process."""
    logging.basicConfig(level=logging.ERROR)
    share = _Share(_Settings(**json.loads(sys.argv[1])))
    try:
        serve(share.answer)
    finally:
        share.close()


if __name__ == "__main__":
    main()
