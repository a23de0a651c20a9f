"""The dispatcher: whose slots a stream may touch, while streams and lives replace each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from summing_backend import SummingBackend, make_spec

from impala_common.codec.specs import pack_environment_spec
from impala_common.errors import StaleSessionError
from impala_common.spec.specs import EnvironmentSpec
from impala_policy_server.dispatcher import Dispatcher
from impala_policy_server.policy_engine import PolicyEngine
from impala_policy_server.policy_source import OnEnd, OnRoom, PolicySource
from impala_rl.v1 import policy_pb2

SPEC = make_spec()


class EngineSource(PolicySource):
    """An engine that trains nothing."""

    def __init__(self) -> None:
        self.engine = PolicyEngine(
            SPEC.environment, SummingBackend(), SPEC.agent_state, seed=1, max_slots=8,
            max_batch_size=8,
        )  # fmt: skip

    def attach(self, on_room: OnRoom, on_end: OnEnd) -> None:
        pass

    async def open(self, environment: EnvironmentSpec, num_slots: int) -> PolicyEngine:
        return self.engine

    async def close(self) -> None:
        pass


class Stream:
    """A stream that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[policy_pb2.PlayResponse] = []
        self.is_replaced = False

    def send(self, response: policy_pb2.PlayResponse) -> None:
        self.sent.append(response)

    def replace(self) -> None:
        self.is_replaced = True


def hello(life: int) -> policy_pb2.PlayHello:
    return policy_pb2.PlayHello(
        client_id="same",
        client_run_id=life,
        environment=pack_environment_spec(SPEC.environment),
        slot_count=2,
    )


def observations(step_number: int) -> policy_pb2.SlotObservations:
    return policy_pb2.SlotObservations(
        slots=[0, 1],
        step_numbers=[step_number] * 2,
        leaves=[np.zeros((2, 2), np.float32).tobytes()],
        rewards=[0.0, 0.0],
        is_first=[step_number == 0] * 2,
    )


def serve(play: Callable[[Dispatcher], Awaitable[None]]) -> None:
    async def run() -> None:
        dispatcher = Dispatcher(
            EngineSource(), max_clients=4, max_batch_wait_s=0.001, slot_timeout_s=60.0
        )
        await play(dispatcher)

    asyncio.run(asyncio.wait_for(run(), 30.0))


@pytest.mark.parametrize("life", [1, 2], ids=["same-life", "next-life"])
def test_stream_that_was_replaced_touches_no_slot_of_the_newer_one(life: int) -> None:
    """The race: a message and a goodbye of the older stream that come after the newer hello."""

    async def play(dispatcher: Dispatcher) -> None:
        older, newer = Stream(), Stream()
        first = await dispatcher.join(older, hello(1), SPEC.environment, "")
        dispatcher.take(first, older, observations(0))
        second = await dispatcher.join(newer, hello(life), SPEC.environment, "")
        assert older.is_replaced
        dispatcher.take(second, newer, observations(0))

        with pytest.raises(StaleSessionError, match="newer stream"):
            dispatcher.take(first, older, observations(1))
        dispatcher.leave(first, older, is_goodbye=True)

        assert dispatcher.engine is not None
        table = dispatcher.engine.table
        assert table.is_connected[second.places].all(), "it left with the older stream"
        assert table.step_numbers[second.places].tolist() == [0, 0]
        assert [client.number for client in dispatcher.clients] == [second.number]
        dispatcher.take(second, newer, observations(1))
        assert len(newer.sent) == 2, "each observation has its action"

    serve(play)


def test_life_that_was_replaced_cannot_come_back_while_the_newer_one_is_there() -> None:
    """gRPC can lose the status that told it so: it tries again as after a broken stream."""

    async def play(dispatcher: Dispatcher) -> None:
        streams = [Stream() for _ in range(4)]
        await dispatcher.join(streams[0], hello(1), SPEC.environment, "")
        await dispatcher.join(streams[1], hello(2), SPEC.environment, "")
        newest = await dispatcher.join(streams[2], hello(3), SPEC.environment, "")

        for life in (1, 2):
            with pytest.raises(StaleSessionError, match="newer life"):
                await dispatcher.join(streams[3], hello(life), SPEC.environment, "")

        assert not streams[2].is_replaced
        dispatcher.leave(newest, streams[2], is_goodbye=True)
        await dispatcher.join(streams[3], hello(1), SPEC.environment, "")

    serve(play)


def test_stream_that_ends_after_all_were_closed_ends_quietly() -> None:
    async def play(dispatcher: Dispatcher) -> None:
        stream = Stream()
        client = await dispatcher.join(stream, hello(1), SPEC.environment, "")
        dispatcher.close_all()

        dispatcher.leave(client, stream, is_goodbye=True)

        assert not len(dispatcher.clients)

    serve(play)
