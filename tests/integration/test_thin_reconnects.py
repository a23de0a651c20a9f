"""The Python clients against servers that read small messages, or end each stream at once."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from small_policy_server import SmallPolicyServer

from impala_rl.v1 import learner_pb2, policy_pb2, policy_pb2_grpc
from impala_thin import (
    AsyncSlotsClient,
    Environment,
    Observations,
    RefusedError,
    SlotsClient,
    StoppedError,
)
from impala_thin.hello import ClientSettings

CARTPOLE = Environment.simple((4,), num_actions=2)
NUM_SLOTS, SLOT_BYTES = 40, 16
SHORTEST_S = 0.05  # half of a client's first wait: jitter takes no more


def observe(num_slots: int, *, is_first: bool) -> Observations:
    rewards = [0.0 if is_first else 1.0] * num_slots
    values = np.arange(4 * num_slots, dtype=np.float32).reshape(num_slots, 4)
    return Observations(list(range(num_slots)), values, rewards, is_first=[is_first] * num_slots)


def act_blocking(address: str, num_slots: int, num_breaks: int) -> int:
    settings = ClientSettings(server=address, connect_timeout_s=30.0)
    with SlotsClient(CARTPOLE, num_slots, settings=settings) as client:
        client.act(observe(num_slots, is_first=True))
        for _ in range(num_breaks):
            client.send(observe(num_slots, is_first=False))
            client.break_stream()
            client.settle()
        return client.num_reconnects


def act_asyncio(address: str, num_slots: int, num_breaks: int) -> int:
    async def act() -> int:
        settings = ClientSettings(server=address, connect_timeout_s=30.0)
        async with AsyncSlotsClient(CARTPOLE, num_slots, settings=settings) as client:
            await client.act(observe(num_slots, is_first=True))
            for _ in range(num_breaks):
                client.break_stream()
                await client.act(observe(num_slots, is_first=False))
            return client.num_reconnects

    return asyncio.run(act())


class DeafServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Welcomes, answers nothing, and never ends a stream."""

    def __init__(self) -> None:
        self.left_in_time: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def Play(self, requests: Any, context: Any) -> Iterator[policy_pb2.PlayResponse]:  # noqa: N802
        was_left = threading.Event()
        context.add_callback(was_left.set)
        yield policy_pb2.PlayResponse(welcome=policy_pb2.PlayWelcome(protocol_version=1))
        self.left_in_time.put(was_left.wait(60.0))


Act = Callable[[str, int, int], int]
both_clients = pytest.mark.parametrize("act", [act_blocking, act_asyncio])


@both_clients
def test_message_above_the_servers_limit_goes_in_pieces(act: Act) -> None:
    """Before and after a broken stream; the server reads no message that is larger."""
    with SmallPolicyServer(slot_timeout_s=30.0) as server:
        act(server.address, NUM_SLOTS, 1)
        whole = max(server.message_sizes)
    with SmallPolicyServer(slot_timeout_s=30.0, max_bytes=whole // 3) as server:
        assert act(server.address, NUM_SLOTS, 1) == 1

        assert max(server.message_sizes) <= whole // 3 < whole
        assert len(server.message_sizes) >= 2 * 4


@both_clients
def test_observation_above_the_servers_limit_is_refused_by_name(act: Act) -> None:
    with (
        SmallPolicyServer(max_bytes=SLOT_BYTES + 4, reads_all=True) as server,
        pytest.raises(RefusedError, match="max_message_bytes"),
    ):
        act(server.address, 2, 0)


IMAGES = Environment.simple((64, 64), num_actions=2, dtype="uint8")


def images(num_slots: int, *, is_first: bool, has_noise: bool) -> Observations:
    rewards = [0.0 if is_first else 1.0] * num_slots
    values = np.zeros((num_slots, 64, 64), np.uint8)
    if has_noise:
        values = np.random.default_rng(0).integers(0, 256, values.shape, np.uint8)
    return Observations(list(range(num_slots)), values, rewards, is_first=[is_first] * num_slots)


@pytest.mark.parametrize(("has_noise", "is_smaller"), [(False, True), (True, False)])
def test_observations_are_compressed_where_that_makes_them_smaller(
    has_noise: bool, is_smaller: bool
) -> None:
    """Also what is sent again after a broken stream."""
    with SmallPolicyServer(slot_timeout_s=30.0) as server:
        settings = ClientSettings(server=server.address, connect_timeout_s=30.0)
        with SlotsClient(IMAGES, 4, settings=settings) as client:
            client.act(images(4, is_first=True, has_noise=has_noise))
            client.send(images(4, is_first=False, has_noise=has_noise))
            client.break_stream()
            client.settle()

        assert len(server.message_sizes) >= 2
        assert all((size < 1000) is is_smaller for size in server.message_sizes)


@pytest.mark.parametrize("has_package", [True, False])
def test_observations_go_as_they_are_if_asked_for_or_without_the_package(
    monkeypatch: pytest.MonkeyPatch, has_package: bool
) -> None:
    with SmallPolicyServer(slot_timeout_s=30.0) as server:
        if not has_package:
            monkeypatch.setitem(sys.modules, "zstandard", None)
        settings = ClientSettings(server=server.address, compresses=not has_package)
        with SlotsClient(IMAGES, 4, settings=settings) as client:
            client.act(images(4, is_first=True, has_noise=False))

        assert min(server.message_sizes) > 4 * 64 * 64


class Turnstile(SmallPolicyServer):
    """Welcomes a client and drains it at once, so many times; then it plays."""

    def __init__(self, num_turns: int) -> None:
        super().__init__(slot_timeout_s=30.0)
        self._num_turns = num_turns

    async def _play(self, context: Any) -> None:
        if not self._num_turns:
            return await super()._play(context)
        self._num_turns -= 1
        assert await context.read() is not grpc.aio.EOF
        await context.write(policy_pb2.PlayResponse(welcome=policy_pb2.PlayWelcome()))
        drain = policy_pb2.PlayDrain(reason=learner_pb2.DRAIN_REASON_STOPPING)
        await context.write(policy_pb2.PlayResponse(drain=drain))
        return None


@both_clients
def test_server_that_welcomes_and_drains_is_asked_ever_more_rarely(act: Act) -> None:
    """A welcome is no progress; seen to fail with 300 streams in a second."""
    num_turns = 5
    with Turnstile(num_turns) as server:
        start_s = time.monotonic()
        assert act(server.address, 2, 0) == num_turns

    assert time.monotonic() - start_s >= SHORTEST_S * (2**num_turns - 1)


def test_wait_is_short_again_once_an_answer_has_come() -> None:
    with SmallPolicyServer(slot_timeout_s=30.0) as server:
        settings = ClientSettings(server=server.address, connect_timeout_s=30.0)
        with SlotsClient(CARTPOLE, 1, settings=settings) as client:
            attempts = client._state.attempts
            for _ in range(10):
                longest_s = attempts.next_wait_s("no reason")
            client.act(observe(1, is_first=True))

            assert attempts.next_wait_s("no reason") <= 2 * SHORTEST_S < 1.0 <= longest_s


def test_client_that_stops_leaves_a_server_that_ends_no_stream() -> None:
    servicer = DeafServicer()
    allowing_pings = [("grpc.http2.max_ping_strikes", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(2), options=allowing_pings)
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    settings = ClientSettings(server=f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    with SlotsClient(CARTPOLE, 1, settings=settings) as client:
        client.send(observe(1, is_first=True))
        client.stop()
        with pytest.raises(StoppedError):
            client.receive()
    assert servicer.left_in_time.get(timeout=90.0), "the client waited for the server"
    server.stop(0.0)
