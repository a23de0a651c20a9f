"""Many clients at once, and guesses of the token (docs/faults.md, 47, 53)."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import numpy as np
import pytest
from commands import newest_metric
from faults.attacked import SERVICE, Attacked
from faults.row_figures import amount
from raw_peer import Peer

from impala_common.codec.specs import pack_environment_spec
from impala_common.run import metrics
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc

pytestmark = pytest.mark.timeout(300)

CARTPOLE = EnvironmentSpec((TensorSpec("observation", (4,), "float32"),), ActionSpec.discrete(2))
WAIT_S = 60.0


def test_weights_for_everybody_at_once_come_from_one_copy(attacked: Attacked) -> None:
    number = amount(100, 500)
    before = UpdateCost(attacked)
    attacked._server.wait_until(lambda: before.num_updates() >= amount(20, 500), "updates")
    before_ms = before.cpu_ms()
    with attacked.channel() as channel, attacked.under_attack(47, max_rss_mib=150) as attack:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        request = learner_pb2.GetWeightsRequest()
        sizes: Counter[int] = Counter()
        during = UpdateCost(attacked)
        for _ in range(amount(1, 10)):
            asyncio.run(_fetch(attacked, number, sizes))
        (header,) = stub.GetWeights(
            learner_pb2.GetWeightsRequest(have_version=2**62), timeout=WAIT_S
        )
        assert header.header.is_not_modified
        attacked._server.wait_until(lambda: during.num_updates() >= amount(20, 500), "updates")
        num_bytes = sum(size * count for size, count in sizes.items())
        attack.figures |= {
            "clients": number,
            "fetches": sizes.total(),
            "mib_sent": num_bytes / 2**20,
            "update_cpu_ms_before": before_ms,
            "update_cpu_ms_during": during.cpu_ms(),
        }
        del request
    assert sizes.total() == number * amount(1, 10)
    assert min(sizes) > 2**18


def test_registrations_of_everybody_at_once_are_bounded(attacked: Attacked) -> None:
    """Sessions without a stream are forgotten beyond four times max_actors."""
    number = amount(300, 5000)
    codes: Counter[str] = Counter()
    with attacked.channel() as channel, attacked.under_attack(47, max_rss_mib=60) as attack:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        calls = []
        for index in range(number):
            request = learner_pb2.RegisterRequest(
                actor=header_pb2.ActorHeader(actor_id=f"flood-{index}", actor_run_id=index),
                protocol_version=1,
                environment=pack_environment_spec(CARTPOLE),
                environment_slot_count=1,
            )
            calls.append(stub.Register.future(request, timeout=WAIT_S))
            if len(calls) == 60:
                codes.update(call.code().name for call in calls)
                calls.clear()
        codes.update(call.code().name for call in calls)
        attack.figures |= {"registrations": codes.total()}
    assert codes == {"OK": number}


def test_guesses_of_the_token_are_refused_and_fill_no_log(attacked: Attacked) -> None:
    """256 random bits are not guessed: nobody is locked out for it, and one line in 10 s tells."""
    number = amount(1000, 10_000)
    codes: Counter[str] = Counter()
    peer = Peer(attacked.address)
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP)
    with (
        grpc.secure_channel(attacked.address, credentials) as channel,
        attacked.under_attack(53, max_rss_mib=40) as attack,
    ):
        call = channel.unary_unary(f"{SERVICE}GetConfig")
        calls = []
        for index in range(number):
            guess = (("authorization", f"Bearer {index:064x}"),)
            calls.append(call.future(b"", timeout=WAIT_S, metadata=guess))
            if len(calls) == 60:
                codes.update(one.code().name for one in calls)
                calls.clear()
        codes.update(one.code().name for one in calls)
        attack.figures |= {"guesses": number, "refused": codes["UNAUTHENTICATED"]}
    peer.close()
    assert codes == {"UNAUTHENTICATED": number}
    told = [line for line in attack.log if "refused" in line]
    assert len(told) <= 2 + attack.figures["seconds"] / 10
    # One in 10 s: where another test's client was refused just before, that line tells of both.
    assert any("refused" in line for line in attacked.log_lines())


class UpdateCost:
    """CPU time of the learner process for each update from now on.

    What clients take of shared cores is not in it; what the learner has to do for them is.
    """

    def __init__(self, attacked: Attacked) -> None:
        self._path = attacked.run.path
        (self._learner,) = attacked._server.children("impala_server.learner")
        self._begin = self._read()

    def num_updates(self) -> float:
        return self._read()[0] - self._begin[0]

    def cpu_ms(self) -> float:
        num_updates, cpu_s = np.subtract(self._read(), self._begin)
        return float(1e3 * cpu_s / num_updates)

    def _read(self) -> tuple[float, float]:
        """Returns updates and CPU seconds at about the same moment: 0.2 s lie between lines."""
        times = self._learner.cpu_times()
        return newest_metric(self._path, metrics.UPDATES), times.user + times.system


async def _fetch(attacked: Attacked, number: int, sizes: Counter[int]) -> None:
    """Fetches the weights `number` times at once, over ten connections."""
    token = open(attacked.security.token_file).read().strip()  # noqa: SIM115
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP),
        grpc.access_token_call_credentials(token),
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.secure_channel(attacked.address, credentials, options=options) for _ in range(10)
    ]

    async def fetch(index: int) -> None:
        stub = learner_pb2_grpc.LearnerServiceStub(channels[index % len(channels)])
        request = learner_pb2.GetWeightsRequest()
        size = 0
        async for response in stub.GetWeights(request, timeout=WAIT_S):
            size += len(response.chunk)
        sizes[size] += 1

    try:
        await asyncio.gather(*(fetch(index) for index in range(number)))
    finally:
        for channel in channels:
            await channel.close()
