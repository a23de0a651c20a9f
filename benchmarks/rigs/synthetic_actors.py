"""Actors without environment and policy: they send the same unrolls again and again.

They use the product's own client, session, packing and sender, so to the server they are
actors that never think; the server is the limit, or the wire. `SyntheticActors` is the
benchmark's side; this module run as a process is a share of them, a thread for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rigs.worker_process import WorkerGroup, serve, share_out
from benchmarks.suite.section import Json
from impala_common.process.allocator import keep_large_buffers

if TYPE_CHECKING:
    from impala_rl.v1 import learner_pb2

_MODULE = "benchmarks.rigs.synthetic_actors"


class ActorTotals(NamedTuple):
    """What synthetic actors did since they started.

    Attributes:
      num_unrolls: unrolls that were accepted.
      num_messages: messages they came in.
      cpu_s: CPU seconds of their processes.
      time_s: when that was, on the monotonic clock.
    """

    num_unrolls: int
    num_messages: int
    cpu_s: float
    time_s: float


class SyntheticActors(WorkerGroup):
    """Any number of synthetic actors, spread over a few processes; they begin paused."""

    def __init__(
        self,
        address: str,
        source: Path,
        num_actors: int,
        num_processes: int = 2,
        packs_each: bool = True,
        compress: bool = True,
        name: str = "a",
        cores: list[int] | None = None,
    ) -> None:
        """Starts and registers them.

        Args:
          address: of the learner.
          source: folder of an UnrollSource.
          num_actors: streams.
          num_processes: processes that share them.
          packs_each: whether each message is packed anew, as an actor does; otherwise each is
            packed once, so that the sender costs as little as it can.
          compress: whether observations may be compressed.
          name: what the actors' names begin with.
          cores: cores they may run on; None: all.
        """
        self._num_actors = num_actors
        common = {
            "address": address,
            "source": str(source),
            "packs_each": packs_each,
            "compress": compress,
        }
        super().__init__(
            _MODULE,
            num_actors,
            num_processes,
            lambda k, share: {**common, "name": f"{name}{k}", "num_actors": share},
            cores,
        )

    @contextlib.contextmanager
    def at_work(self, warm_up_s: float, num_actors: int = 0) -> Iterator[None]:
        """A context in which they send as fast as verdicts come, after a warm-up.

        Args:
          warm_up_s: seconds before the context begins.
          num_actors: how many of them; the others stay connected and idle. 0: all.
        """
        self._let_run(num_actors or self._num_actors)
        try:
            time.sleep(warm_up_s)
            yield
        finally:
            self._let_run(0)

    def totals(self) -> ActorTotals:
        """Returns what all of them did so far."""
        answers = self.ask("totals")
        return ActorTotals(
            sum(answer["num_unrolls"] for answer in answers),
            sum(answer["num_messages"] for answer in answers),
            self.cpu_s,
            time.monotonic(),
        )

    def _let_run(self, num_actors: int) -> None:
        shares = share_out(num_actors, self.num_workers)
        self.ask_each("run", [{"num_actors": share} for share in shares])


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What one process of them is told."""

    address: str
    source: str
    name: str
    num_actors: int
    packs_each: bool
    compress: bool


class _Share:
    """The synthetic actors of this process."""

    def __init__(self, settings: _Settings) -> None:
        from benchmarks.rigs.unroll_source import UnrollSource
        from impala_actor.acting.learner_client import LearnerClient
        from impala_actor.acting.unroll_sender import UnrollSender

        self._settings = settings
        self._source = UnrollSource.load(Path(settings.source))
        self._gates = [threading.Event() for _ in range(settings.num_actors)]
        self._stop = threading.Event()
        self._clients = [
            LearnerClient(settings.address, f"{settings.name}-{k}", 60.0, self._stop)
            for k in range(settings.num_actors)
        ]
        self._senders = []
        for client in self._clients:
            own_connection(client)
            session = client.register(self._source.spec.environment, self._source.num_slots)
            self._senders.append(UnrollSender(client, session, lambda unused_version: None))
        self._threads = [
            threading.Thread(target=self._act, args=(k,), name=f"synthetic-{k}")
            for k in range(settings.num_actors)
        ]
        for thread in self._threads:
            thread.start()

    def answer(self, request: Json) -> Json:
        """Does what the benchmark asks for."""
        if request["kind"] == "run":
            self._let_run(request["num_actors"])
        num_messages = sum(sender.outcomes.get("ACCEPTED", 0) for sender in self._senders)
        refused = {
            name: count
            for sender in self._senders
            for name, count in sender.outcomes.items()
            if name != "ACCEPTED"
        }
        if refused:
            raise SystemExit(f"the learner refused unrolls: {refused}")
        return {
            "num_messages": num_messages,
            "num_unrolls": num_messages * self._source.num_slots,
        }

    def close(self) -> None:
        """Ends all of them."""
        self._stop.set()
        self._let_run(len(self._gates))
        for thread in self._threads:
            thread.join()
        for sender, client in zip(self._senders, self._clients, strict=True):
            sender.close()
            client.close()

    def _let_run(self, num_actors: int) -> None:
        for k, gate in enumerate(self._gates):
            if k < num_actors:
                gate.set()
            else:
                gate.clear()

    def _act(self, index: int) -> None:
        from impala_common.errors import ImpalaError

        sender, requests = self._senders[index], self._requests(index)
        with contextlib.suppress(ImpalaError):  # the learner ends, or we do
            while not self._stop.is_set():
                self._gates[index].wait()
                sender.wait_for_room()
                sender.send(next(requests))

    def _requests(self, index: int) -> Iterator[learner_pb2.PushUnrollsRequest]:
        from impala_common.codec.unrolls import Unrolls, pack_unrolls
        from impala_rl.v1 import learner_pb2

        source, compress = self._source, self._settings.compress
        unrolls = itertools.islice(itertools.cycle(source.messages), index, None)

        def pack(message: Unrolls) -> learner_pb2.PushUnrollsRequest:
            request = learner_pb2.PushUnrollsRequest()
            pack_unrolls(message, source.spec, compress, request.unrolls)
            return request

        if self._settings.packs_each:
            yield from map(pack, unrolls)
            return
        # More than the window: whoever is sent again has had its verdict.
        yield from itertools.cycle([pack(next(unrolls)) for _ in range(4)])


def own_connection(client: object) -> None:
    """Gives a client a connection of its own: in one process, gRPC shares them by default."""
    import grpc

    from impala_common.rpc.channel import client_options
    from impala_rl.v1 import learner_pb2_grpc

    options = [*client_options(), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(client.address, options=options)  # type: ignore[attr-defined]
    client._channel.close()  # type: ignore[attr-defined]
    client._channel = channel  # type: ignore[attr-defined]
    client._stub = learner_pb2_grpc.LearnerServiceStub(channel)  # type: ignore[attr-defined,no-untyped-call]


def main() -> None:
    """Body of one process of them."""
    logging.basicConfig(level=logging.ERROR)
    keep_large_buffers()  # as an actor does
    share = _Share(_Settings(**json.loads(sys.argv[1])))
    try:
        serve(share.answer)
    finally:
        share.close()


if __name__ == "__main__":
    main()
