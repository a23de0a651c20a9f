"""Thin actors, a policy server and a learner, with real gRPC between them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import free_port
from running_policy_server import RunningPolicyServer
from running_server import RunningServer, make_config, table_of

from impala_common.run import metrics
from impala_rl.v1 import policy_pb2
from impala_thin import (
    AsyncPolicyClient,
    Environment,
    EpisodeLostError,
    Observations,
    PolicyClient,
    RefusedError,
    RunFinishedError,
    ServerUnavailableError,
    SlotsClient,
    StoppedError,
)
from impala_thin.gymnasium_driver import make_vector, play_vector

CARTPOLE = Environment.simple((4,), num_actions=2)
# Gymnasium's own space has infinite bounds; only shape and type count.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "run") as running:
        yield running


@pytest.fixture
def policy(server: RunningServer) -> Iterator[RunningPolicyServer]:
    with RunningPolicyServer(server.address, slot_timeout_s=20.0) as running:
        yield running


def first(num: int, value: float = 0.0) -> Observations:
    return Observations(
        list(range(num)), np.full((num, 4), value, np.float32), [0.0] * num, is_first=[True] * num
    )


def further(num: int, value: float = 0.0) -> Observations:
    return Observations(list(range(num)), np.full((num, 4), value, np.float32), [1.0] * num)


def play_on(client: SlotsClient) -> None:
    for _ in range(10_000):
        client.act(further(client.num_slots))


def test_run_is_trained_by_a_thin_actor_alone(tmp_path: Path) -> None:
    config = make_config(job={"total_steps": 3000})
    with RunningServer(tmp_path / "run", config) as server:
        with RunningPolicyServer(server.address) as policy:
            env = make_vector("CartPole-v1", 4, {})
            spaces = env.single_observation_space, env.single_action_space
            environment = Environment.from_spaces(*spaces)
            with policy.client(environment, 4) as client:
                played = play_vector(env, client, seed=1)
            policy.join()
        status = server.wait_finished()

    assert status[metrics.STEPS] >= 3000
    assert played.num_steps >= status[metrics.STEPS]
    assert len(played.returns) > 20
    reported = [line for line in server.metrics() if line.get(metrics.EPISODES)]
    assert reported[-1][metrics.EPISODES] <= len(played.returns)
    assert reported[-1][metrics.EPISODES] > len(played.returns) // 2


def test_slots_do_not_wait_for_each_other(policy: RunningPolicyServer) -> None:
    """The fault: a batch that waits until a silent slot speaks."""
    with policy.client(CARTPOLE, 3) as client:
        client.act(first(3))
        for _ in range(5):
            answer = client.act(Observations([1], np.ones((1, 4), np.float32), [1.0]))
            assert answer.slots == [1]
        client.send(Observations([0], np.ones((1, 4), np.float32), [1.0]))
        client.send(Observations([2], np.ones((1, 4), np.float32), [1.0]))
        slots = client.receive().slots
        while len(slots) < 2:
            slots += client.receive().slots
        assert sorted(slots) == [0, 2]


def test_two_clients_share_a_batch_and_keep_their_own_answers(policy: RunningPolicyServer) -> None:
    with (
        policy.client(CARTPOLE, 2, wants_logits=True) as one,
        policy.client(CARTPOLE, 2, wants_logits=True) as two,
    ):
        one.send(first(2, 0.25))
        two.send(first(2, -3.0))
        a, b = one.receive(), two.receive()

    assert a.logits is not None
    assert b.logits is not None
    np.testing.assert_array_equal(a.logits[0], a.logits[1])
    assert (a.logits[0] != b.logits[0]).any()


def test_compressed_observations_are_those_that_were_sent(policy: RunningPolicyServer) -> None:
    """As many slots as make a message worth compressing; a second one as it is."""
    num = 300
    with policy.client(CARTPOLE, num, wants_logits=True) as client:
        squeezed = client.act(first(num, 0.5))
        plain = client.act(Observations([0], first(1, 0.5).values, [1.0]))

    assert squeezed.logits is not None
    assert plain.logits is not None
    np.testing.assert_allclose(squeezed.logits[0], plain.logits[0], rtol=1e-6)


def test_broken_stream_gets_the_same_actions_again(policy: RunningPolicyServer) -> None:
    """Seen to fail with a server that decides a repetition anew."""
    with policy.client(CARTPOLE, 8, wants_logits=True) as client:
        client.act(first(8))
        for step in range(12):
            before = policy.source._engine.counts.decisions
            client.send(further(8, step / 10))
            client.break_stream()
            answer = client.receive()
            assert sorted(answer.slots) == list(range(8))
            assert policy.source._engine.counts.decisions == before + 8
        assert client.num_reconnects == 12


def test_silent_slots_are_given_up_and_reset(server: RunningServer) -> None:
    with (
        RunningPolicyServer(server.address, slot_timeout_s=0.2) as policy,
        policy.client(CARTPOLE, 2) as client,
    ):
        client.act(first(2))
        client.act(further(2))
        given_up = threading.Event()
        for _ in range(200):
            if policy.source._engine.counts.silent_slots == 2:
                break
            given_up.wait(0.1)
        with pytest.raises(EpisodeLostError) as lost:
            client.act(further(2))
        assert lost.value.slots == [0, 1]
        assert client.act(first(2)).slots == [0, 1]


def test_server_that_is_killed_has_forgotten_the_slots(server: RunningServer) -> None:
    with RunningPolicyServer(server.address) as policy:
        port = int(policy.address.rpartition(":")[2])
        client = policy.client(CARTPOLE, 2)
        client.act(first(2))
    with client, RunningPolicyServer(server.address, port=port):
        with pytest.raises(EpisodeLostError):
            client.act(further(2))
        assert client.act(first(2)).slots == [0, 1]


def test_same_call_tries_again_once_the_server_can_be_reached(server: RunningServer) -> None:
    """Seen to fail with ValueError: slot 0 waits for the action of its last observation."""
    port = free_port()
    given = {"server": f"127.0.0.1:{port}", "environment": CARTPOLE}

    async def play_asyncio() -> None:
        async with AsyncPolicyClient(**given, connect_timeout_s=0.2) as client:
            with pytest.raises(ServerUnavailableError):
                await client.reset(np.zeros(4, np.float32))
            with RunningPolicyServer(server.address, port=port) as policy:
                for _ in range(100):
                    with contextlib.suppress(ServerUnavailableError):
                        await client.reset(np.zeros(4, np.float32))
                        break
                assert policy.source._engine.counts.observations == 1

    with PolicyClient(**given, connect_timeout_s=0.2) as client:
        with pytest.raises(ServerUnavailableError):
            client.reset(np.zeros(4, np.float32))
        with RunningPolicyServer(server.address, port=port) as policy:
            for _ in range(100):
                with contextlib.suppress(ServerUnavailableError):
                    client.reset(np.zeros(4, np.float32))
                    break
            assert policy.source._engine.counts.observations == 1
    with pytest.raises(StoppedError):
        client.reset(np.zeros(4, np.float32))
    asyncio.run(play_asyncio())


def test_learner_that_is_restarted_goes_on_with_the_slots_there_are(tmp_path: Path) -> None:
    """The slots keep their episodes: no client has to reset."""
    config = make_config(transport={"port": free_port()})
    with (
        RunningServer(tmp_path / "run", config) as server,
        RunningPolicyServer(server.address) as policy,
        policy.client(CARTPOLE, 8) as client,
    ):
        client.act(first(8))
        for _ in range(40):
            client.act(further(8))
        server.wait_until(lambda status: status.get(metrics.UPDATES, 0) >= 2)
        server.stop()
        server.let_threads_stay()
        server.__exit__(None, None, None)
        with RunningServer(tmp_path / "run", config) as again:
            again.let_threads_stay()
            before = table_of(again.supervisor.status).get(metrics.UPDATES, 0)
            stop = threading.Event()
            player = threading.Thread(target=play_until, args=(client, stop))
            player.start()
            try:
                again.wait_until(lambda status: status.get(metrics.UPDATES, 0) >= before + 3, 60.0)
            finally:
                stop.set()
                player.join(20.0)
            assert not player.is_alive()
            assert policy.source._engine.counts.lost == 0
            policy.stop()


def play_until(client: SlotsClient, stop: threading.Event) -> None:
    while not stop.is_set():
        client.act(further(client.num_slots))


def test_new_life_of_a_client_ends_the_old_one(policy: RunningPolicyServer) -> None:
    with policy.client(CARTPOLE, 1, client_id="same") as old:
        old.act(first(1))
        with policy.client(CARTPOLE, 1, client_id="same") as new:
            new.act(first(1))
            with pytest.raises(RefusedError, match="ABORTED: a newer stream of client same"):
                old.act(further(1))
            assert new.act(further(1)).slots == [0]


def test_command_that_is_stopped_says_goodbye(policy: RunningPolicyServer) -> None:
    """Seen to fail with a handler that raised through gRPC: code 1 and a traceback."""
    command = [sys.executable, "-m", "impala_thin", "--server", policy.address]
    with subprocess.Popen(
        [*command, "--env", "CartPole-v1", "--slots", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as player:
        try:
            waiting = threading.Event()
            for _ in range(600):
                engine = policy.source._engine
                if engine is not None and engine.counts.decisions > 100:
                    break
                waiting.wait(0.1)
            player.terminate()
            out, errors = player.communicate(timeout=30.0)
        finally:
            player.kill()

    assert player.returncode == 0, errors
    assert out.startswith("played ")
    assert engine.table.is_live.sum() == 0, "the slots were not closed at once"


def test_environment_of_another_shape_is_refused_by_name(policy: RunningPolicyServer) -> None:
    with policy.client(CARTPOLE) as client:
        client.act(first(1))
        with (
            policy.client(Environment.simple((5,), 2)) as other,
            pytest.raises(RefusedError, match=r"observation.shape: expected \(4,\)"),
        ):
            other.act(first(1))


def test_client_is_told_that_the_run_has_finished(tmp_path: Path) -> None:
    config = make_config(job={"total_steps": 64})
    with RunningServer(tmp_path / "run", config) as server:
        with RunningPolicyServer(server.address) as policy:
            with policy.client(CARTPOLE, 8) as client:
                client.act(first(8))
                with pytest.raises(RunFinishedError):
                    play_on(client)
            policy.join()
        server.wait_finished()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.slots.append(0), "slots: expected 1 to 1, got 2"),
        (lambda m: m.slots.__setitem__(0, 7), "slots: expected distinct ones"),
        (lambda m: m.slots.__setitem__(0, -1), "slots: expected distinct ones"),
        (lambda m: m.step_numbers.append(1), "expected 1 step_numbers and rewards"),
        (lambda m: m.step_numbers.__setitem__(0, -5), "step_numbers: expected 0"),
        (lambda m: m.rewards.__setitem__(0, float("nan")), "rewards: expected finite"),
        (lambda m: m.leaves.__setitem__(0, b"\0" * 15), "observation: expected 16 bytes, got 15"),
        (lambda m: m.leaves.append(b""), "leaves: expected 1, got 2"),
        (
            lambda m: m.leaves.__setitem__(0, np.full(4, np.inf, np.float32).tobytes()),
            "observation: expected finite",
        ),
        (lambda m: m.truncated.extend([True, True]), "truncated: expected none or 1, got 2"),
        (lambda m: m.terminated.append(True), "is_first: expected no reward and no end"),
        (lambda m: setattr(m, "codec", 1), "damaged zstd"),
        (lambda m: setattr(m, "codec", 99), "unknown codec 99"),
    ],
)
def test_message_that_breaks_the_contract_is_refused(
    policy: RunningPolicyServer, change: object, text: str
) -> None:
    with policy.client(CARTPOLE) as client:
        message = policy_pb2.SlotObservations(
            slots=[0],
            step_numbers=[0],
            leaves=[np.zeros(4, np.float32).tobytes()],
            rewards=[0.0],
            is_first=[True],
        )
        change(message)  # type: ignore[operator]
        client._connect()
        client._state._unanswered[0] = (message, 0)
        client._requests.put(policy_pb2.PlayRequest(observations=message))
        with pytest.raises(RefusedError, match=f"INVALID_ARGUMENT: .*{text}"):
            client.receive()


def test_dozen_lines_play_an_environment(policy: RunningPolicyServer) -> None:
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    with PolicyClient(policy.address, CARTPOLE, connect_timeout_s=20.0) as client:
        num_episodes = 0
        action = client.reset(env.reset(seed=3)[0])
        while num_episodes < 3:
            observation, reward, terminated, truncated, _ = env.step(action)
            action = client.step(observation, float(reward), terminated, truncated)
            if action is None:
                num_episodes += 1
                action = client.reset(env.reset()[0])
