"""The policy engine against an independent record, in orders that hypothesis draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_slots import Recorder
from summing_backend import SummingBackend, make_spec

from impala_common.errors import CapacityError, InvalidRequestError
from impala_common.policy.inference.backend import Array
from impala_policy_server.observation_decoder import Observations
from impala_policy_server.outbox import Outbox
from impala_policy_server.policy_engine import PolicyEngine


class Rig:
    """An engine with one client of N slots, and the record of what is played."""

    def __init__(
        self, num_slots: int, frame_stack: int = 0, max_slots: int = 64, unroll_length: int = 4
    ) -> None:
        self.spec = make_spec(frame_stack, unroll_length)
        self.now_s = 0.0
        self.outbox = Outbox(lambda: None)
        self.engine = PolicyEngine(
            self.spec.environment,
            SummingBackend(),
            self.spec.agent_state,
            seed=1,
            max_slots=max_slots,
            max_batch_size=3,
            unroll=self.spec,
            max_unrolls=2,
            outbox=self.outbox,
            clock=lambda: self.now_s,
        )
        self.places = self.engine.open_slots(num_slots, 1, is_evaluation=False, is_greedy=False)
        self.record = Recorder()
        self.memory: dict[tuple[int, int], float] = {}
        self.number = [-1] * num_slots
        self.ended = [True] * num_slots

    def observe(
        self, slot: int, *, reward: float = 0.0, end: str = "", is_first: bool = False
    ) -> None:
        """Sends the slot's next observation."""
        self.number[slot] += 1
        terminated, truncated = end == "terminated", end == "truncated"
        key = (slot, self.number[slot])
        before = 0.0 if is_first else self.memory.get((slot, key[1] - 1), 0.0)
        self.memory[key] = before + key[1]
        self.record.observe(key, reward, terminated, truncated, is_first)
        self.ended[slot] = bool(end)
        self.send(slot, reward=reward, end=end, is_first=is_first)

    def send(
        self, slot: int, *, reward: float = 0.0, end: str = "", is_first: bool = False
    ) -> None:
        taken = self.engine.take(
            self.places[[slot]],
            Observations(
                np.array([slot]),
                np.array([self.number[slot]]),
                {"observation": np.array([[slot, self.number[slot]]], np.float32)},
                np.array([reward], np.float32),
                np.array([end == "terminated"]),
                np.array([end == "truncated"]),
                np.array([is_first]),
            ),
        )
        assert not taken.lost.size
        self.note(taken.answered)

    def note(self, places: Array) -> None:
        table = self.engine.table
        for place in places:
            if not table.has_ended[place]:
                slot = int(table.slots[place])
                key = (slot, int(table.step_numbers[place]))
                self.record.decide(key, int(table.actions[place]), table.logits[place].copy())

    def decide(self) -> None:
        self.note(self.engine.decide())

    def is_waiting(self, slot: int) -> bool:
        return bool(self.engine.table.is_pending[self.places[slot]])

    def finish(self) -> None:
        """Closes the slots and compares everything that was sent with the record."""
        self.engine.close_slots(self.places)
        while self.outbox.wait(0.0):
            for part in self.outbox.take(2).parts:
                assert part.unrolls.num_unrolls <= 2
                assert part.policy_version == self.engine.version
                self.record.compare(part.unrolls)
                self.compare_memory(part.unrolls.leaves)
        assert len(self.record.trained) == len(set(self.record.trained)), "a row was trained twice"

    def compare_memory(self, leaves: dict[str, Array]) -> None:
        if "observation" not in leaves:
            return
        states = leaves["initial_agent_state/0"][:, 0, 0]
        for state, (slot, number) in zip(states, leaves["observation"][0].astype(int), strict=True):
            if not self.record.steps[slot, number].is_first:
                assert state == self.memory[slot, number - 1]


ACTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            ["step"] * 6 + ["terminated", "truncated", "repeat"] + ["abandon"] * 3 + ["decide"] * 4
        ),
    ),
    min_size=20,
    max_size=150,
)


@pytest.mark.parametrize(("frame_stack", "unroll_length"), [(0, 4), (3, 4), (0, 1), (3, 2)])
@given(acts=ACTS)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_unrolls_hold_each_decision_with_a_result_once(
    frame_stack: int, unroll_length: int, acts: list[tuple[int, str]]
) -> None:
    """Seen to fail without `cut`, with a kept previous action, and with repeated steps as new."""
    rig = Rig(3, frame_stack, unroll_length=unroll_length)
    last: dict[int, dict[str, object]] = {}
    for index, (slot, act) in enumerate(acts):
        if act == "decide":
            rig.decide()
        elif act == "repeat":
            if slot in last:
                rig.send(slot, **last[slot])  # type: ignore[arg-type]
        elif not rig.is_waiting(slot):
            is_first = rig.ended[slot] or act == "abandon"
            end = act if act in ("terminated", "truncated") and not is_first else ""
            reward = 0.0 if is_first else 1.0 + index
            last[slot] = {"reward": reward, "end": end, "is_first": is_first}
            rig.observe(slot, reward=reward, end=end, is_first=is_first)
    rig.decide()
    rig.finish()

    assert set(rig.record.trained) == rig.record.wanted()


def test_silent_slot_is_truncated_at_its_last_observation_and_has_to_be_reset() -> None:
    rig = Rig(2)
    for slot in range(2):
        rig.observe(slot, is_first=True)
    rig.decide()
    for _ in range(2):
        rig.observe(0, reward=3.0)
        rig.decide()
    rig.now_s = 5.0
    rig.observe(1, reward=1.0)
    rig.decide()
    rig.engine.drop_silent(4.0)

    assert rig.engine.counts.silent_slots == 1
    (part,) = rig.outbox.take(8).parts
    leaves = part.unrolls.leaves
    assert leaves["is_padding"][:, 0].tolist() == [False, False, True, True]
    assert leaves["truncated"][:, 0].tolist() == [False, True, False, False]
    assert leaves["observation"][2, 0].tolist() == [0, 2]
    rig.number[0] += 1
    given_late = Observations(
        np.array([0]), np.array([3]), {"observation": np.zeros((1, 2), np.float32)},
        np.ones(1, np.float32), np.zeros(1, bool), np.zeros(1, bool), np.zeros(1, bool),
    )  # fmt: skip
    taken = rig.engine.take(rig.places[[0]], given_late)
    assert taken.lost.tolist() == [0]
    opened = given_late._replace(is_first=np.ones(1, bool), rewards=np.zeros(1, np.float32))
    assert not rig.engine.take(rig.places[[0]], opened).lost.size


def test_slot_that_waits_for_the_learner_is_not_silent() -> None:
    """The fault: time without room in the outbox counts as the client's silence."""
    rig = Rig(1)
    rig.observe(0, is_first=True)
    rig.now_s = 100.0

    rig.engine.drop_silent(1.0)
    rig.decide()
    rig.engine.drop_silent(1.0)

    assert rig.engine.counts.silent_slots == 0


@pytest.mark.parametrize(
    ("number", "fields", "text"),
    [
        (3, {}, "expected step_number 1"),
        (0, {"decided": False}, ""),
        (1, {"decided": False}, "before the last one's action"),
    ],
)
def test_number_out_of_order_is_refused_and_takes_nothing(
    number: int, fields: dict[str, bool], text: str
) -> None:
    rig = Rig(1)
    rig.observe(0, is_first=True)
    if fields.get("decided", True):
        rig.decide()
    before = dataclasses.asdict(rig.engine.counts)
    rig.number[0] = number

    if not text:
        rig.send(0, is_first=True)
        return
    with pytest.raises(InvalidRequestError, match=text):
        rig.send(0)
    assert before == dataclasses.asdict(rig.engine.counts)


def test_observation_after_an_end_has_to_open_an_episode() -> None:
    rig = Rig(1)
    rig.observe(0, is_first=True)
    rig.decide()
    rig.observe(0, reward=1.0, end="terminated")
    rig.number[0] += 1

    with pytest.raises(InvalidRequestError, match="expected is_first"):
        rig.send(0, reward=1.0)


def test_new_session_drops_unrolls_and_keeps_episodes() -> None:
    rig = Rig(1)
    rig.observe(0, is_first=True)
    rig.decide()
    rig.observe(0, reward=1.0)
    rig.engine.begin_session(SummingBackend(), 0, rig.spec, 2)
    rig.decide()
    for _ in range(5):
        rig.observe(0, reward=2.0)
        rig.decide()

    (part,) = rig.outbox.take(8).parts
    assert part.unrolls.leaves["observation"][0, 0].tolist() == [0, 2]
    assert not part.unrolls.leaves["is_first"].any()
    rig.record.compare(part.unrolls)


def test_version_of_unrolls_is_the_oldest_that_chose_one_of_their_actions() -> None:
    rig = Rig(1)
    versions = iter([(7, {}), (8, {}), (9, {}), None, None, None])
    rig.engine._take_weights = lambda: next(versions)
    rig.observe(0, is_first=True)
    rig.decide()
    for _ in range(4):
        rig.observe(0, reward=1.0)
        rig.decide()

    assert rig.outbox.take(8).parts[0].policy_version == 7


def test_padding_row_alone_is_not_sent_and_every_episode_is() -> None:
    """Seen to fail: the version of no decision was refused, and the message's episodes with it."""
    rig = Rig(1, unroll_length=1)
    rig.observe(0, is_first=True)
    rig.decide()
    rig.observe(0, reward=2.0, end="terminated")
    first = rig.outbox.take(8)
    rig.observe(0, is_first=True)
    assert not rig.outbox.wait(0.0)
    rig.decide()
    rig.observe(0, reward=3.0, end="truncated")

    loads = (first, rig.outbox.take(8))
    for load, episode_return in zip(loads, (2.0, 3.0), strict=True):
        assert [part.policy_version for part in load.parts] == [rig.engine.version]
        assert [episode.episode_return for episode in load.episodes] == [episode_return]


def test_room_grows_with_its_slots_and_ends_at_the_limit() -> None:
    rig = Rig(3, max_slots=40)
    rig.observe(0, is_first=True)
    rig.decide()
    places = rig.engine.open_slots(30, 2, is_evaluation=True, is_greedy=True)

    assert len({*places.tolist(), *rig.places.tolist()}) == 33
    rig.observe(0, reward=1.0)
    rig.decide()
    rig.finish()
    assert rig.record.trained == [(0, 0)]
    with pytest.raises(CapacityError, match="--max-slots"):
        rig.engine.open_slots(11, 3, is_evaluation=True, is_greedy=True)
    assert len(rig.engine.open_slots(10, 3, is_evaluation=True, is_greedy=True)) == 10


def test_evaluation_slots_are_not_trained_and_greedy_ones_do_not_draw() -> None:
    rig = Rig(1)
    places = rig.engine.open_slots(2, 2, is_evaluation=True, is_greedy=True)
    for step in range(6):
        rig.engine.take(
            places,
            Observations(
                np.arange(2), np.full(2, step), {"observation": np.full((2, 2), step, np.float32)},
                np.zeros(2, np.float32), np.zeros(2, bool), np.zeros(2, bool), np.full(2, not step),
            ),
        )  # fmt: skip
        rig.engine.decide()
        table = rig.engine.table
        assert table.actions[places].tolist() == table.logits[places].argmax(axis=1).tolist()

    rig.engine.close_slots(places)
    assert not rig.outbox.wait(0.0)
