"""The nemesis: carries out a plan of faults on a cluster, heals it, and checks the guarantees.

    with Cluster(folder) as cluster:
        result = Nemesis(cluster, make_plan(seed, 60.0, counts), 60.0).run()

One thread does everything, twenty times a second: what is due of the plan, what is to end of the
faults that last, what has died and is to start again, a sample of memory now and then. What it did
stands in nemesis.jsonl beside the histories, with the same clock.
"""

from __future__ import annotations

import heapq
import itertools
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from commands import newest_metric
from faults.cluster import Cluster, _signal
from faults.figures import Samples, find_late_exits, measure_recovery, read_events
from faults.plan import Fault
from faults.proxy import TO_ACTOR

from impala_common.process.exit_codes import OK
from impala_common.run import metrics
from impala_common.run.run_directory import write_json_atomic
from impala_common.testing.history_checker import Report, check
from impala_common.testing.patterns import BEST_RETURN

_TICK_S = 0.05
_SAMPLE_S = 5.0
_HEALED_S = 2.0  # metrics this much younger come from a learner that nobody has touched
RETURN_BAR = 0.9 * BEST_RETURN
"""Mean return that a run must reach at its end, faulted or not."""


class Nemesis:
    """One run of a plan."""

    def __init__(
        self,
        cluster: Cluster,
        plan: list[Fault],
        duration_s: float,
        on_progress: Callable[[dict[str, Any]], None] = lambda result: None,
    ) -> None:
        """Prepares; `run` does it. `on_progress` gets the result so far, twice a minute."""
        self._cluster = cluster
        self._plan = plan
        self._duration_s = duration_s
        self._on_progress = on_progress
        self._ends: list[tuple[float, int, Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._log = (cluster.folder / "nemesis.jsonl").open("a")
        self.done: Counter[str] = Counter()
        self.samples = Samples()
        self.stop = threading.Event()

    def run(self, heal_s: float = 40.0) -> dict[str, Any]:
        """Carries out the plan, heals, waits for the return, ends everything: the figures."""
        start_s = time.monotonic()
        self._wait_for_training(60.0)
        plan = list(self._plan)
        begun_s = next_progress_s = time.monotonic()
        next_sample_s = begun_s
        while (now_s := time.monotonic()) < begun_s + self._duration_s and not self.stop.is_set():
            while plan and plan[0].at_s <= now_s - begun_s:
                self._begin(plan.pop(0))
            self._tick(now_s)
            if now_s >= next_sample_s:
                next_sample_s = now_s + _SAMPLE_S
                self.samples.take(self._cluster.processes())
            if now_s >= next_progress_s:
                next_progress_s = now_s + 30.0
                self._on_progress(self._figures(is_complete=False, started_s=start_s))
            time.sleep(_TICK_S)
        self._heal()
        returns = self._wait_for_return(heal_s)
        self._note("stop")
        codes = self._cluster.stop()
        self._log.close()
        report = check(self._cluster.history)
        figures = self._figures(is_complete=not self.stop.is_set(), started_s=start_s)
        return figures | self._judge(report, returns, codes)

    def _begin(self, fault: Fault) -> None:
        cluster = self._cluster
        number = fault.target % len(cluster.actors)
        mortal = 1 + fault.target % (len(cluster.actors) - 1)  # the first actor is never killed
        proxy = cluster.proxies[number]
        match fault.kind:
            case "actor_kill":
                self._kill_actor(mortal, fault.detail)
            case "actor_stop" | "actor_term":
                if (actor := cluster.actors[mortal]) is None:
                    return
                if fault.kind == "actor_term":
                    _signal(actor.process, signal.SIGTERM)
                else:
                    self._pause(psutil.Process(actor.process.pid), fault.duration_s)
            case "learner_kill" | "learner_kill_in_save":
                if "=" not in fault.detail:
                    cluster.kill_server(fault.detail)
                else:  # its next life dies by itself, at that place
                    cluster.server_failpoints.append(fault.detail)
                    if fault.kind == "learner_kill_in_save" and "kill9" not in cluster.armed:
                        cluster.kill_server("all")
            case "learner_stop":
                if (process := cluster.server_processes().get(fault.detail)) is None:
                    return
                self._pause(process, fault.duration_s)
            case "learner_term":
                if cluster.server is None:
                    return
                _signal(cluster.server.process, signal.SIGTERM)
            case "partition":
                for one in cluster.proxies:
                    one.black_hole()
                self._later(fault.duration_s, lambda: [one.heal() for one in cluster.proxies])
            case "acks_lost":
                proxy.black_hole(TO_ACTOR)
                self._later(fault.duration_s, proxy.heal)
            case "delay":
                proxy.delay(float(fault.detail))
                self._later(fault.duration_s, proxy.heal)
            case "reset":
                proxy.reset()
            case "cut":
                proxy.cut_after(int(fault.detail))
            case "flip":
                proxy.flip_after(int(fault.detail))
        self.done[fault.kind] += 1
        if fault.kind.startswith("actor_"):
            number = mortal
        self._note(fault.kind, target=number, duration_s=fault.duration_s, detail=fault.detail)

    def _kill_actor(self, number: int, failpoint: str) -> None:
        actor = self._cluster.actors[number]
        if failpoint:
            self._cluster.actor_failpoints[number] = failpoint  # of its next life
        if actor is not None:
            _signal(actor.process, signal.SIGKILL)

    def _pause(self, process: psutil.Process, duration_s: float) -> None:
        _signal(process, signal.SIGSTOP)
        self._later(duration_s, lambda: _signal(process, signal.SIGCONT))

    def _later(self, delay_s: float, work: Callable[[], Any]) -> None:
        heapq.heappush(self._ends, (time.monotonic() + delay_s, next(self._numbers), work))

    def _tick(self, now_s: float) -> None:
        while self._ends and self._ends[0][0] <= now_s:
            heapq.heappop(self._ends)[2]()
        num_exits = len(self._cluster.exits)
        self._cluster.revive()
        for name, code, at_s in self._cluster.exits[num_exits:]:
            self.done[f"{name.partition('-')[0]}_exit_{code}"] += 1
            self._note("exit", name=name, code=code, noticed_s=at_s)

    def _note(self, what: str, **fields: Any) -> None:
        self._log.write(json.dumps({"event": what, "time_s": time.monotonic(), **fields}) + "\n")
        self._log.flush()

    def _heal(self) -> None:
        while self._ends:
            heapq.heappop(self._ends)[2]()
        self._cluster.heal()
        self._note("healed")
        self._healed_at = time.time()  # of the same clock as the times of files

    def _wait_for_training(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while newest_metric(self._cluster.run.path, metrics.UPDATES) < 5:
            self._tick(time.monotonic())
            assert time.monotonic() < deadline_s, "the cluster never began to train"
            time.sleep(_TICK_S)

    def _wait_for_return(self, timeout_s: float) -> float:
        """Returns the mean return, once it has reached the bar or the time is over."""
        deadline_s = time.monotonic() + timeout_s
        newest = 0.0
        while time.monotonic() < deadline_s:
            self._tick(time.monotonic())
            self.samples.take(self._cluster.processes())
            newest = newest_metric(self._cluster.run.path, metrics.RETURN_MEAN)
            if self._cluster.run.metrics_path.stat().st_mtime < self._healed_at + _HEALED_S:
                newest = 0.0  # what was there before
            elif newest >= RETURN_BAR and self._is_whole():
                break
            time.sleep(0.5)
        return newest

    def _is_whole(self) -> bool:
        connected = newest_metric(self._cluster.run.path, metrics.ACTORS_CONNECTED)
        return connected == len(self._cluster.actors)

    def _figures(self, is_complete: bool, started_s: float) -> dict[str, Any]:
        exits = Counter(
            f"{name.partition('-')[0]}_exit_{code}" for name, code, _ in self._cluster.exits
        )
        return {
            "is_complete": is_complete,
            "duration_s": round(time.monotonic() - started_s, 1),
            "faults": dict(sorted(self.done.items())),
            "exits": dict(sorted(exits.items())),
            "actor_kills": exits["actor_exit_-9"],
            "learner_kills": sum(n for name, n in exits.items() if name.startswith("server_exit"))
            - exits["server_exit_0"] - exits["server_exit_75"],
            "memory": self.samples.summarise(),
        }  # fmt: skip

    def _judge(self, report: Report, returns: float, codes: dict[str, int]) -> dict[str, Any]:
        recovery = measure_recovery(self._cluster.folder)
        found = [f"{name}: {text}" for name, texts in report.violations.items() for text in texts]
        late = find_late_exits(list(read_events(self._cluster.folder / "nemesis.jsonl")))
        found += late
        found += [f"{name} ended with {code}" for name, code in codes.items() if code != OK]
        if self._cluster.exits and (lost := self._killed_nobody()):
            found.append(lost)
        if returns < RETURN_BAR:
            found.append(f"mean return {returns:.2f} after healing, not {RETURN_BAR}")
        return {
            "violations": found[:50],
            "num_violations": len(found),
            "acked_and_lost": len(report.violations.get("nothing_lost", ())),
            "trained_twice": len(report.violations.get("trained_once", ())),
            "torn_and_trained": len(report.violations.get("nothing_invented", ()))
            + len(report.violations.get("patterns", ())),
            "late_servers": sum(text.startswith("server") for text in late),
            "late_actors": sum(text.startswith("actor") for text in late),
            "mean_return": round(returns, 3),
            "history": report.figures,
            "recovery": recovery,
        }

    def _killed_nobody(self) -> str:
        """Returns what is wrong if an actor nobody killed has ended."""
        ended = [one for one in self._cluster.exits if one[0] == "actor-0"]
        return f"the actor that nobody kills has ended: {ended}" if ended else ""


def write_result(path: Path, name: str, result: dict[str, Any]) -> None:
    """Puts one run's result into the JSON file of all, under `name`."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[name] = result
    write_json_atomic(path, results)
