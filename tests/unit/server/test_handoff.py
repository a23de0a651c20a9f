"""The pipes between front end and learner: messages arrive unchanged, and death is detected."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common.config import MAX_STORAGE_SLOTS, RolloutConfig
from impala_common.errors import ConfigError, QueueClosedError
from impala_server.learner.batch_queue import BatchQueue
from impala_server.storage.frame_pipe import make_pair
from impala_server.storage.handoff import (
    MAX_EPISODES_PER_BATCH,
    ActorSeconds,
    FinishedEpisode,
    FreedSlot,
    FullSlot,
    HandoffPipe,
)

NOTHING = ActorSeconds(0.0, 0.0, 0.0)
Pipes = tuple[HandoffPipe, HandoffPipe]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    one, two = make_pair()
    yield HandoffPipe(one), HandoffPipe(two)
    for end in (one, two):
        end.close()


EPISODES = st.builds(FinishedEpisode, st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1))


@given(
    slot=st.integers(0, 2**31 - 1),
    episodes=st.lists(EPISODES, max_size=600),
    seconds=st.tuples(*[st.floats(allow_nan=False)] * 3),
)
@settings(max_examples=50, deadline=None)
def test_receive_full_returns_what_was_sent(
    slot: int, episodes: list[FinishedEpisode], seconds: tuple[float, float, float]
) -> None:
    one, two = make_pair()
    with one, two:
        full = FullSlot(slot, episodes, ActorSeconds(*seconds))

        HandoffPipe(one).send_full(full)

        assert HandoffPipe(two).receive_full(1.0) == full


def test_receive_without_message_returns_none(pipes: Pipes) -> None:
    front_end, learner = pipes

    assert learner.receive_full(0.0) is None
    assert front_end.receive_free() is None


def test_receive_free_returns_slots_in_order(pipes: Pipes) -> None:
    front_end, learner = pipes
    freed = [FreedSlot(3, True), FreedSlot(0, False), FreedSlot(2, True)]
    for one in freed:
        learner.send_free(*one)

    assert [front_end.receive_free() for _ in range(4)] == [*freed, None]


@pytest.mark.parametrize("work", ["receive_full", "receive_free", "send_full", "send_free"])
def test_handoff_when_other_end_is_closed_says_so(pipes: Pipes, work: str) -> None:
    front_end, learner = pipes
    end = {"receive_full": learner, "send_free": learner}.get(work, front_end)
    (front_end if end is learner else learner).close()
    arguments = {
        "receive_full": (1.0,),
        "receive_free": (),
        "send_full": (FullSlot(0, [], NOTHING),),
        "send_free": (0,),
    }

    with pytest.raises(QueueClosedError, match="gone"):
        getattr(end, work)(*arguments[work])


def test_receive_after_last_message_of_a_closed_end_says_so(pipes: Pipes) -> None:
    front_end, learner = pipes
    learner.send_free(5)
    learner.close()

    assert front_end.receive_free() == FreedSlot(5, True)
    with pytest.raises(QueueClosedError):
        front_end.receive_free()


def test_handoff_messages_are_packed_numbers(pipes: Pipes) -> None:
    front_end, learner = pipes

    front_end.send_full(FullSlot(1, [FinishedEpisode(2.5, 3)], ActorSeconds(0.25, 0.5, 1.0)))

    data = learner.frames.receive(1.0)
    assert data is not None
    assert struct.unpack("<ii3d dq", data) == (1, 1, 0.25, 0.5, 1.0, 2.5, 3)


def test_batch_queue_when_closed_wakes_who_takes(pipes: Pipes) -> None:
    queue = BatchQueue(pipes[1])

    queue.close()

    with pytest.raises(QueueClosedError, match="closed"):
        queue.take()


def test_batch_queue_take_returns_full_slots_and_give_back_frees_them(pipes: Pipes) -> None:
    front_end, learner = pipes
    queue = BatchQueue(learner)
    front_end.send_full(FullSlot(4, [], NOTHING))

    full = queue.take()
    queue.give_back(full.slot)

    assert full.slot == 4
    assert front_end.receive_free() == FreedSlot(4, True)


def test_storage_settings_whose_hand_offs_do_not_fit_are_refused() -> None:
    """While the learner is paused each slot may be a message with as many episodes as there may be.

    Seen to fail without the rule in RolloutConfig.
    """
    slots = MAX_STORAGE_SLOTS
    RolloutConfig(batch_size=4, num_storages=4 * slots)
    with pytest.raises(ConfigError, match=r"num_storages .* at most 8192 batches"):
        RolloutConfig(batch_size=4, num_storages=4 * slots + 1)


def test_send_full_has_room_for_every_slot_with_all_episodes(pipes: Pipes) -> None:
    front_end, learner = pipes
    episodes = [FinishedEpisode(1.0, 1)] * (MAX_EPISODES_PER_BATCH + 1)
    for slot in range(MAX_STORAGE_SLOTS):
        front_end.send_full(FullSlot(slot, episodes, NOTHING))

    full = learner.receive_full(1.0)
    assert full is not None
    assert full.episodes == episodes[:MAX_EPISODES_PER_BATCH]
