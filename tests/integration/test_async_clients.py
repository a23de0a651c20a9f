"""The asyncio clients of a policy server, with real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from running_policy_server import RunningPolicyServer
from running_server import RunningServer, make_config
from small_policy_server import SmallPolicyServer

from impala_thin import (
    AsyncPolicyClient,
    AsyncSlotsClient,
    Environment,
    EpisodeLostError,
    Observations,
    RefusedError,
    RunFinishedError,
    ServerUnavailableError,
    StoppedError,
)
from impala_thin.hello import ClientSettings

CARTPOLE = Environment.simple((4,), num_actions=2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "run") as running:
        yield running


@pytest.fixture
def policy(server: RunningServer) -> Iterator[RunningPolicyServer]:
    with RunningPolicyServer(server.address, slot_timeout_s=20.0) as running:
        yield running


def make_client(policy: RunningPolicyServer, num_slots: int, **settings: Any) -> AsyncSlotsClient:
    settings = {"connect_timeout_s": 20.0} | settings
    chosen = ClientSettings(server=policy.address, **settings)
    return AsyncSlotsClient(CARTPOLE, num_slots, settings=chosen)


def observe(slots: list[int], *, is_first: bool = False) -> Observations:
    reward = 0.0 if is_first else 1.0
    num = len(slots)
    values = np.full((num, 4), 0.5, np.float32)
    return Observations(slots, values, [reward] * num, is_first=[is_first] * num)


def test_dozen_lines_play_an_environment(policy: RunningPolicyServer) -> None:
    async def play() -> int:
        env = gymnasium.make("CartPole-v1")
        num_episodes = 0
        async with AsyncPolicyClient(policy.address, CARTPOLE, connect_timeout_s=20.0) as client:
            action = await client.reset(env.reset(seed=3)[0])
            while num_episodes < 3:
                observation, reward, terminated, truncated, _ = env.step(action)
                action = await client.step(observation, float(reward), terminated, truncated)
                if action is None:
                    num_episodes += 1
                    action = await client.reset(env.reset()[0])
        return num_episodes

    assert asyncio.run(play()) == 3
    table = policy.source._engine.table
    assert table.is_live.sum() == 0, "goodbye did not close the slot"


def test_task_that_is_cancelled_leaves_its_action_to_the_next_with_the_same_observation() -> None:
    """Seen to fail: the late action was dropped, and the observation went out as a further step."""

    async def play(address: str) -> None:
        settings = ClientSettings(server=address, connect_timeout_s=20.0)
        async with AsyncSlotsClient(CARTPOLE, 1, settings=settings) as client:
            await client.act(observe([0], is_first=True))
            for is_late in (False, True):
                waiting = asyncio.create_task(client.act(observe([0])))
                while not client._waiting:
                    await asyncio.sleep(0)
                waiting.cancel()
                while is_late and client._waiting:  # until the action has come
                    await asyncio.sleep(0.01)
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                other = Observations([0], np.zeros((1, 4), np.float32), [1.0])
                with pytest.raises(ValueError, match="not taken"):
                    await client.act(other)
                if client._waiting:  # the action has not come yet; what is refused changes nothing
                    with pytest.raises(ValueError, match="waits for the action"):
                        await client.act(observe([0], is_first=True))
                actions = await client.act(observe([0]))
                assert list(actions.slots) == [0]

            assert client._state._next_steps == [3], "an observation was sent twice"

    with SmallPolicyServer(slot_timeout_s=30.0) as server:
        asyncio.run(asyncio.wait_for(play(server.address), 60.0))


def test_tasks_share_a_client_at_their_own_pace_over_broken_streams(
    policy: RunningPolicyServer,
) -> None:
    """Each task gets the actions of its own slots, each observation is decided once."""
    num_tasks, num_steps = 4, 25

    async def play(client: AsyncSlotsClient, index: int) -> None:
        slots = [2 * index, 2 * index + 1]
        await client.act(observe(slots, is_first=True))
        for step in range(num_steps):
            if index == 0 and step % 5 == 4:
                client.break_stream()
            answer = await client.act(observe(slots[:1] if step % 3 == 2 else slots))
            assert answer.slots == (slots[:1] if step % 3 == 2 else slots)
            assert answer.policy_version >= 0

    async def play_all() -> int:
        async with make_client(policy, 2 * num_tasks) as client:
            await asyncio.gather(*(play(client, index) for index in range(num_tasks)))
            return client.num_reconnects

    assert asyncio.run(play_all()) >= 1
    alone = sum(step % 3 == 2 for step in range(num_steps))
    num_observations = num_tasks * (2 + 2 * num_steps - alone)
    assert policy.source._engine.counts.decisions == num_observations


def test_lost_slots_are_named_and_the_client_goes_on(policy: RunningPolicyServer) -> None:
    async def play() -> list[int]:
        async with make_client(policy, 2) as client:
            await client.act(observe([0], is_first=True))
            with pytest.raises(EpisodeLostError) as lost:
                await client.act(observe([0, 1]))
            await client.act(observe([0, 1], is_first=True))
            return lost.value.slots

    assert asyncio.run(play()) == [1]


def test_errors_reach_all_tasks_that_wait(policy: RunningPolicyServer) -> None:
    async def play_twice() -> list[Any]:
        async with make_client(policy, 2, client_id="same") as old:
            await old.act(observe([0, 1], is_first=True))
            async with make_client(policy, 2, client_id="same") as new:
                await new.act(observe([0, 1], is_first=True))
                acts = old.act(observe([0])), old.act(observe([1]))
                return list(await asyncio.gather(*acts, return_exceptions=True))

    errors = asyncio.run(play_twice())
    assert [type(error) for error in errors] == [RefusedError, RefusedError]
    assert "ABORTED" in str(errors[0])


def test_closing_stops_a_task_that_waits_for_a_server() -> None:
    async def play() -> None:
        settings = ClientSettings(server="127.0.0.1:1")
        client = AsyncSlotsClient(CARTPOLE, 1, settings=settings)
        waiting = asyncio.create_task(client.act(observe([0], is_first=True)))
        await asyncio.sleep(0)  # lets it begin
        await client.close()
        with pytest.raises((StoppedError, asyncio.CancelledError)):
            await waiting

    asyncio.run(asyncio.wait_for(play(), 20.0))


def test_server_that_is_not_there_in_time_is_said() -> None:
    async def play() -> None:
        settings = ClientSettings(server="127.0.0.1:1", connect_timeout_s=0.2)
        async with AsyncSlotsClient(CARTPOLE, 1, settings=settings) as client:
            await client.act(observe([0], is_first=True))

    with pytest.raises(ServerUnavailableError, match=r"within 0\.2 s"):
        asyncio.run(play())


def test_client_is_told_that_the_run_has_finished(tmp_path: Path) -> None:
    async def play(policy: RunningPolicyServer) -> None:
        async with make_client(policy, 8) as client:
            await client.act(observe(list(range(8)), is_first=True))
            for _ in range(10_000):
                await client.act(observe(list(range(8))))

    with RunningServer(tmp_path / "run", make_config(job={"total_steps": 64})) as server:
        with RunningPolicyServer(server.address) as policy:
            with pytest.raises(RunFinishedError):
                asyncio.run(play(policy))
            policy.join()
        server.wait_finished()


def test_evaluation_slots_are_greedy_or_drawn_and_never_trained(
    policy: RunningPolicyServer,
) -> None:
    """One observation in 32 slots: greedy ones do the same, drawn ones do not."""

    async def play(is_greedy: bool) -> np.ndarray[Any, Any]:
        settings = {"is_evaluation": True, "is_greedy": is_greedy, "wants_logits": True}
        async with make_client(policy, 32, **settings) as client:
            slots = list(range(32))
            answer = await client.act(observe(slots, is_first=True))
            for _ in range(20):  # longer than an unroll
                await client.act(observe(slots))
            assert answer.logits is not None
            likeliest = answer.logits.argmax(axis=1)
            assert not is_greedy or (answer.values == likeliest).all()
            return np.unique(answer.values)

    assert len(asyncio.run(play(True))) == 1
    assert len(asyncio.run(play(False))) == 2
    assert policy.source._engine.counts.decisions == 2 * 21 * 32
    assert not policy.source._engine.table.is_trained.any()
