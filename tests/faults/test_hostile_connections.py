"""Slow, silent and many connections, and clients that never read (docs/faults.md, 45, 46, 48)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from faults.attacked import BEARER, SERVICE, Attacked
from faults.row_figures import amount, full_only
from raw_http2 import RawClient, grpc_message

from impala_common.rpc.limits import HELLO_DEADLINE_S
from impala_rl.v1 import learner_pb2, learner_pb2_grpc
from impala_server.front_end.listener.connections import max_connections, raise_descriptor_limit

pytestmark = pytest.mark.timeout(300)

MAX_ACTORS = 256
INVALID_ARGUMENT, DEADLINE_EXCEEDED = 3, 4
MARGIN_S = 15.0
"""How late a deadline may be on a machine that has much else to do."""


@full_only
def test_slow_streams_are_ended_and_others_served(attacked: Attacked) -> None:
    """1,000 calls that send one byte of their first message, of every method in turn."""
    methods = ("GetConfig", "Register", "GetWeights", "PushUnrolls")
    statuses: Counter[int | None] = Counter()
    with attacked.under_attack(45, max_rss_mib=60) as attack:
        clients = [RawClient(attacked.address) for _ in range(20)]
        start_s = time.monotonic()
        for client in clients:
            for index in range(50):
                path = f"{SERVICE}{methods[index % 4]}".encode()
                client.call(path, BEARER, b"\0", stream=2 * index + 1)
        with ThreadPoolExecutor(len(clients)) as pool:  # all answer pings: they are slow, not gone
            for found in pool.map(lambda c: c.statuses(50, HELLO_DEADLINE_S + MARGIN_S), clients):
                statuses.update(found)
        attack.figures |= {"slow_streams": 1000, "closed_s": time.monotonic() - start_s}
        for client in clients:
            client.close()
    assert statuses == {INVALID_ARGUMENT: 1000}


@full_only
@pytest.mark.parametrize("kind", ["mute", "preface"])
def test_connections_that_never_shake_hands_are_closed(attacked: Attacked, kind: str) -> None:
    from raw_http2 import PREFACE

    host, _, port = attacked.address.rpartition(":")
    number = 1000
    with attacked.under_attack(45, max_rss_mib=60) as attack:
        start_s = time.monotonic()
        connections = [socket.create_connection((host, int(port))) for _ in range(number)]
        for connection in connections:
            connection.settimeout(HELLO_DEADLINE_S + MARGIN_S)
            if kind == "preface":
                connection.sendall(PREFACE)
        num_closed = sum(_is_closed_in_time(connection) for connection in connections)
        attack.figures |= {f"{kind}_closed": num_closed, "closed_s": time.monotonic() - start_s}
    assert num_closed == number


def test_more_connections_than_fit_are_closed_and_those_that_stand_go_on(
    attacked: Attacked,
) -> None:
    num_files = raise_descriptor_limit()
    limit = max_connections(MAX_ACTORS, num_files)
    number = min(amount(limit + 100, 5000), num_files - 200)
    clients: list[RawClient] = []
    with attacked.under_attack(46, max_rss_mib=120) as attack:
        was = attacked.accepted()
        for _ in range(number):
            with contextlib.suppress(OSError):
                clients.append(RawClient(attacked.address))
        num_taken = sum(_takes(client) for client in clients)
        attack.figures |= {"connections": number, "taken": num_taken, "limit": limit}
        attack.figures["descriptors"] = attacked.num_descriptors()
        attacked._server.wait_until(lambda: attacked.accepted() > was, "unrolls meanwhile")
        for client in clients:
            client.close()
    assert limit - 20 <= num_taken <= limit
    with attacked.channel() as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        stub.GetConfig(learner_pb2.GetConfigRequest(), timeout=20.0, wait_for_ready=True)


def test_reader_that_never_reads_weights_is_given_up(attacked: Attacked) -> None:
    """More readers than there are slots; chunks are cut once for all calls."""
    number, deadline = amount(40, 500), b"4S"
    statuses: Counter[int | None] = Counter()
    request = grpc_message(learner_pb2.GetWeightsRequest().SerializeToString())
    with attacked.under_attack(48, max_rss_mib=150) as attack:
        start_s = time.monotonic()
        clients = [RawClient(attacked.address, window=0) for _ in range(number)]
        for client in clients:
            extra = (*BEARER, (b"grpc-timeout", deadline))
            client.call(f"{SERVICE}GetWeights".encode(), extra, request)
        with attacked.channel() as channel:
            stub = learner_pb2_grpc.LearnerServiceStub(channel)
            (header, *chunks) = stub.GetWeights(learner_pb2.GetWeightsRequest(), timeout=60.0)
            attack.figures["legit_fetch_s"] = time.monotonic() - start_s
            assert sum(len(chunk.chunk) for chunk in chunks) == header.header.total_bytes > 2**18
        with contextlib.ExitStack() as stack:
            waiters = [
                threading.Thread(target=_note, args=(client, statuses)) for client in clients
            ]
            for client in clients:
                stack.callback(client.close)
            for waiter in waiters:
                waiter.start()
            for waiter in waiters:
                waiter.join(60.0)
        attack.figures |= {"readers": number, "ended_s": time.monotonic() - start_s}
    assert statuses.total() == number
    assert set(statuses) <= {DEADLINE_EXCEEDED, None}, statuses


def test_weights_without_a_deadline_are_refused(attacked: Attacked) -> None:
    """Nothing else would free what such a client does not read."""
    with attacked.channel() as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        for timeout_s in (None, 3600.0):
            with pytest.raises(grpc.RpcError, match="a deadline of at most 300 s") as caught:
                list(stub.GetWeights(learner_pb2.GetWeightsRequest(), timeout=timeout_s))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def _takes(client: RawClient) -> bool:
    try:
        return client.wait_for_settings()
    except OSError:
        return False


def _note(client: RawClient, statuses: Counter[int | None]) -> None:
    try:
        statuses[client.status(timeout_s=40.0)] += 1
    except TimeoutError:
        return


def _is_closed_in_time(connection: socket.socket) -> bool:
    with contextlib.closing(connection):
        try:
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    return True
