"""Attacks that only the stream of thin actors allows (docs/faults.md, 78).

What is common to all ports runs on it in test_hostile_messages.py.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import zstandard
from faults.attacked import BEARER
from faults.attacked_policy import AttackedPolicy
from faults.row_figures import amount
from raw_http2 import RawClient, grpc_message

from impala_rl.v1 import policy_pb2, policy_pb2_grpc
from impala_thin import Environment

pytestmark = pytest.mark.timeout(300)

PLAY = b"/impala_rl.v1.PolicyService/Play"
# As the thin actor beside it describes CartPole.
CARTPOLE = Environment.simple((4,), num_actions=2)
INVALID_ARGUMENT = 3


def hello(client_id: str, life: int = 1, num_slots: int = 1) -> policy_pb2.PlayRequest:
    return policy_pb2.PlayRequest(
        hello=policy_pb2.PlayHello(
            client_id=client_id,
            client_run_id=life,
            protocol_version=1,
            environment=CARTPOLE.spec,
            slot_count=num_slots,
        )
    )


def first(num_slots: int, **fields: Any) -> policy_pb2.PlayRequest:
    given: dict[str, Any] = {
        "slots": range(num_slots),
        "step_numbers": [0] * num_slots,
        "leaves": [np.zeros((num_slots, 4), np.float32).tobytes()],
        "rewards": [0.0] * num_slots,
        "is_first": [True] * num_slots,
    }
    return policy_pb2.PlayRequest(observations=policy_pb2.SlotObservations(**given | fields))


def code_of(channel: grpc.Channel, *requests: policy_pb2.PlayRequest) -> str:
    """Returns the code that a stream of these requests ends with, kept open by the client."""
    is_over = threading.Event()

    def send() -> Iterator[policy_pb2.PlayRequest]:
        yield from requests
        is_over.wait(30.0)

    call = policy_pb2_grpc.PolicyServiceStub(channel).Play(send(), timeout=30.0)
    try:
        for _ in call:
            continue
    except grpc.RpcError:
        pass
    finally:
        is_over.set()
    return str(call.code().name)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("slots", {"slots": [2**31 - 1]}),
        ("slots", {"slots": [0] * 5000, "step_numbers": [0] * 5000, "rewards": [0.0] * 5000}),
        ("step_numbers", {"step_numbers": [2**63 - 1]}),
        ("rewards", {"rewards": [float("inf")]}),
        ("leaves", {"leaves": []}),
        ("leaves", {"leaves": [b""] * 10_000}),
        ("leaf", {"leaves": [bytes(1 << 24)]}),
        ("flags", {"terminated": [True] * 100_000}),
        ("codec", {"codec": 77}),
        ("repeated", {"is_first": [False]}),
    ],
)
def test_field_that_is_out_of_its_bound_ends_that_stream_alone(
    attacked_policy: AttackedPolicy, name: str, fields: dict[str, Any]
) -> None:
    with (
        attacked_policy.channel() as channel,
        attacked_policy.under_attack(78, max_rss_mib=120),
    ):
        if name == "repeated":  # not an error of form: the slot is simply not known
            call = policy_pb2_grpc.PolicyServiceStub(channel).Play(
                iter([hello("odd"), first(1, **fields)]), timeout=30.0
            )
            assert [one.WhichOneof("payload") for one in call] == ["welcome", "lost_slots"]
            return
        assert code_of(channel, hello("odd"), first(1, **fields)) == "INVALID_ARGUMENT"


def test_zstd_bombs_in_observations_are_not_unpacked(attacked_policy: AttackedPolicy) -> None:
    size = amount(1 << 26, 1 << 28)
    honest = zstandard.ZstdCompressor(level=1).compress(bytes(size))
    unsized = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(size))
    windowed = bytes.fromhex("28b52ffd") + bytes([0b1000_0000, 0xA8]) + bytes(4) + bytes(16)
    codes: Counter[str] = Counter()
    with (
        attacked_policy.channel() as channel,
        attacked_policy.under_attack(78, max_rss_mib=40) as attack,
    ):
        for data in (honest, unsized, windowed, honest[:-1], b""):
            codes[code_of(channel, hello("bomber"), first(1, leaves=[data], codec=1))] += 1
        attack.figures |= {"zstd_bomb_mib": size >> 20}
    assert codes == {"INVALID_ARGUMENT": 5}


def test_client_that_never_reads_its_answers_is_read_no_further(
    attacked_policy: AttackedPolicy,
) -> None:
    """Its repetitions would each get an answer: the memory of a server that queues them all."""
    with (
        RawClient(attacked_policy.address, window=0) as client,
        attacked_policy.under_attack(78, max_rss_mib=40) as attack,
    ):
        client.call(PLAY, BEARER, grpc_message(hello("mute").SerializeToString()))
        repeated = grpc_message(first(1).SerializeToString()) * 500
        client.socket.settimeout(2.0)
        num_bytes = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(100):  # within the window that the server grants
                client.send_data(repeated)
                num_bytes += len(repeated)
        attack.figures |= {"unread_requests_mib": num_bytes / 2**20}


def test_lives_that_replace_each_other_leave_one(attacked_policy: AttackedPolicy) -> None:
    number = amount(100, 2000)
    with (
        attacked_policy.channel() as channel,
        attacked_policy.under_attack(78, max_rss_mib=40) as attack,
    ):
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        for life in range(number):
            call = stub.Play(iter([hello("same", life, 16), first(16)]), timeout=30.0)
            kinds = {one.WhichOneof("payload") for one in call}
            assert kinds <= {"welcome", "actions"}, kinds
        attack.figures |= {"lives": number}


def test_hellos_of_everybody_at_once_are_bounded(attacked_policy: AttackedPolicy) -> None:
    """Beyond --max-clients (256) each further one is told to try again.

    Seen to fail with streams that ended while a message was being written: gRPC refused the
    status, and their clients waited until their deadlines.

    The last attack: those that came in keep their places for the slot timeout.
    """
    number = amount(300, 3000)
    codes: Counter[str] = Counter()
    with (
        attacked_policy.channel() as channel,
        attacked_policy.under_attack(78, max_rss_mib=120) as attack,
    ):
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        for start in range(0, number, 100):
            calls = [
                stub.Play(iter([hello(f"flood-{k}")]), timeout=240.0)
                for k in range(start, min(start + 100, number))
            ]
            for call in calls:
                with contextlib.suppress(grpc.RpcError):
                    list(call)
                codes[call.code().name] += 1
        attack.figures |= {"hellos": number, "refused": codes["RESOURCE_EXHAUSTED"]}
    # UNAVAILABLE: more streams than a connection may have.
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}, codes
    assert codes["OK"] <= 256
