"""The dispatcher: whose slots a stream may touch, while streams and lives replace each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from summing_backend import SummingBackend, make_spec

from impala_common.codec.specs import pack_environment_spec
from impala_common.errors import InvalidRequestError, StaleSessionError
from impala_common.spec.specs import EnvironmentSpec
from impala_policy_server.clients import Client
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
        self.failures: list[Exception] = []

    def send(self, response: policy_pb2.PlayResponse) -> None:
        self.sent.append(response)

    def replace(self) -> None:
        self.is_replaced = True

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


async def next_turn() -> None:
    """Waits until what has been given to the loop so far is done."""
    await asyncio.sleep(0)


def hello(life: int, client: str = "same") -> policy_pb2.PlayHello:
    return policy_pb2.PlayHello(
        client_id=client,
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


def serve(play: Callable[[Dispatcher], Awaitable[None]], max_batch_wait_s: float = 0.001) -> None:
    async def run() -> None:
        dispatcher = Dispatcher(
            EngineSource(), max_clients=4, max_batch_wait_s=max_batch_wait_s, slot_timeout_s=60.0
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
        await next_turn()
        second = await dispatcher.join(newer, hello(life), SPEC.environment, "")
        assert older.is_replaced
        dispatcher.take(second, newer, observations(0))
        dispatcher.take(first, older, observations(1))
        await next_turn()

        (failure,) = older.failures
        assert isinstance(failure, StaleSessionError)
        assert "newer stream" in str(failure)
        dispatcher.leave(first, older, is_goodbye=True)

        assert dispatcher.engine is not None
        table = dispatcher.engine.table
        assert table.is_connected[second.places].all(), "it left with the older stream"
        assert table.step_numbers[second.places].tolist() == [0, 0]
        assert [client.number for client in dispatcher.clients] == [second.number]
        dispatcher.take(second, newer, observations(1))
        await next_turn()
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


async def join_two(dispatcher: Dispatcher) -> list[tuple[Client, Stream]]:
    """Returns two clients of two slots each."""
    joined = []
    for name in ("one", "two"):
        stream = Stream()
        joined.append((await dispatcher.join(stream, hello(1, name), SPEC.environment, ""), stream))
    return joined


def test_messages_of_one_turn_of_the_loop_are_taken_together_and_answered_apart() -> None:
    async def play(dispatcher: Dispatcher) -> None:
        (one, stream_one), (two, stream_two) = await join_two(dispatcher)
        for step in range(3):
            dispatcher.take(two, stream_two, observations(step))
            dispatcher.take(one, stream_one, observations(step))
            await next_turn()

        assert dispatcher.engine is not None
        assert dispatcher.engine.counts.batches == 3, "one call of the network for both clients"
        for stream in (stream_one, stream_two):
            answers = [response.actions for response in stream.sent]
            assert [list(answer.slots) for answer in answers] == [[0, 1]] * 3
            assert [set(answer.step_numbers) for answer in answers] == [{0}, {1}, {2}]

    serve(play)


def test_batch_waits_for_other_slots_no_longer_than_a_decision_takes() -> None:
    """Seen to fail: each observation waited for the whole of max_batch_wait_s."""

    async def play(dispatcher: Dispatcher) -> None:
        (one, stream_one), (two, stream_two) = await join_two(dispatcher)
        dispatcher.take(two, stream_two, observations(0))
        dispatcher.take(one, stream_one, observations(0))
        await next_turn()  # all slots have spoken: the first decision

        dispatcher.take(one, stream_one, observations(1))
        while len(stream_one.sent) < 2:
            await next_turn()

        assert len(stream_two.sent) == 1

    serve(play, max_batch_wait_s=600.0)


@pytest.mark.parametrize("is_first", [True, False], ids=["wrong-one-first", "wrong-one-last"])
def test_message_that_breaks_the_contract_ends_its_own_stream_alone(is_first: bool) -> None:
    async def play(dispatcher: Dispatcher) -> None:
        (one, stream_one), (two, stream_two) = await join_two(dispatcher)
        wrong = observations(0)
        wrong.rewards[0] = float("nan")
        messages = [(one, stream_one, wrong), (two, stream_two, observations(0))]
        for message in messages if is_first else reversed(messages):
            dispatcher.take(*message)
        await next_turn()

        assert [type(error) for error in stream_one.failures] == [InvalidRequestError]
        assert not stream_one.sent
        assert not stream_two.failures
        assert dispatcher.engine is not None
        assert dispatcher.engine.counts.observations == 2, "those of the other client"
        dispatcher.leave(one, stream_one, is_goodbye=False)
        assert len(stream_two.sent) == 1

    serve(play)


def test_observations_before_a_goodbye_in_the_same_turn_count() -> None:
    async def play(dispatcher: Dispatcher) -> None:
        stream = Stream()
        client = await dispatcher.join(stream, hello(1), SPEC.environment, "")
        dispatcher.take(client, stream, observations(0))
        dispatcher.leave(client, stream, is_goodbye=True)

        assert dispatcher.engine is not None
        assert dispatcher.engine.counts.observations == 2
        assert not stream.failures

    serve(play)


def test_repetitions_and_lost_slots_are_told_to_the_client_they_are_of() -> None:
    async def play(dispatcher: Dispatcher) -> None:
        (one, stream_one), (two, stream_two) = await join_two(dispatcher)
        dispatcher.take(one, stream_one, observations(0))
        dispatcher.take(two, stream_two, observations(7))  # not its first: nothing is known of it
        dispatcher.take(one, stream_one, observations(0))  # in the same turn, so each is alone
        await next_turn()

        lost = [list(response.lost_slots.slots) for response in stream_two.sent]
        assert lost == [[0, 1]]
        assert (one.num_observations, one.num_repetitions) == (4, 2)
        assert (two.num_observations, two.num_repetitions) == (2, 0)
        assert not stream_one.failures

    serve(play)
