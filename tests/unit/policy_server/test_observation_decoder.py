"""ObservationDecoder: what a thin client's observations must be."""

from __future__ import annotations

import numpy as np
import pytest

from impala_common.errors import InvalidRequestError
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_policy_server.observation_decoder import Message, ObservationDecoder
from impala_rl.v1 import policy_pb2


def make_message(mask: list[float], dtype: str) -> policy_pb2.SlotObservations:
    return policy_pb2.SlotObservations(
        slots=[0],
        step_numbers=[0],
        rewards=[0.0],
        is_first=[True],
        leaves=[np.array(mask, dtype).tobytes(), np.zeros(2, np.float32).tobytes()],
    )


@pytest.mark.parametrize(("dtype", "bad"), [("float32", -1e9), ("int8", -100), ("int64", 2)])
def test_mask_of_other_numbers_than_0_and_1_is_refused(dtype: str, bad: float) -> None:
    """Seen to fail before: a mask that is added to logits was taken for its opposite."""
    leaves = (
        TensorSpec("observation/action_mask", (3,), dtype, "action_mask"),
        TensorSpec("observation/state", (2,), "float32"),
    )
    decoder = ObservationDecoder(EnvironmentSpec(leaves, ActionSpec.discrete(3)))

    _, decoded = decoder.decode([Message(make_message([0, 1, 1], dtype), np.array([5]))])

    assert decoded.leaves["observation/action_mask"].tolist() == [[0, 1, 1]]
    with pytest.raises(InvalidRequestError, match=r"action_mask: expected each 0 \(illegal\)"):
        decoder.decode([Message(make_message([0, bad, bad], dtype), np.array([5]))])


def test_messages_are_decoded_as_one_would_be() -> None:
    decoder = ObservationDecoder(
        EnvironmentSpec((TensorSpec("observation", (2,), "float32"),), ActionSpec.discrete(3))
    )
    random = np.random.default_rng(1)
    messages = []
    for slots, places, has_ends in (([1, 0], [4, 9], False), ([2], [7, 1, 3], True)):
        num = len(slots)
        content = policy_pb2.SlotObservations(
            slots=slots,
            step_numbers=random.integers(1, 1 << 40, num).tolist(),
            leaves=[random.normal(size=(num, 2)).astype(np.float32).tobytes()],
            rewards=random.normal(size=num).tolist(),
            terminated=[True] * num if has_ends else [],
        )
        messages.append(Message(content, np.array(places)))

    places, joined = decoder.decode(messages)

    assert places.tolist() == [9, 4, 3]
    alone = [decoder.decode([message])[1] for message in messages]
    assert joined.terminated.tolist() == [False, False, True]
    for name in ("slots", "step_numbers", "rewards", "terminated", "truncated", "is_first"):
        wanted = np.concatenate([getattr(one, name) for one in alone])
        assert getattr(joined, name).tolist() == wanted.tolist()
        assert getattr(joined, name).dtype == wanted.dtype
    wanted = np.concatenate([one.leaves["observation"] for one in alone])
    assert joined.leaves["observation"].tolist() == wanted.tolist()


@pytest.mark.parametrize("slots", [[-1], [2], [0, 0], []], ids=["below", "above", "twice", "none"])
def test_slots_that_a_client_does_not_have_are_refused_beside_other_messages(
    slots: list[int],
) -> None:
    """The place of slot 2 of the first client would be that of slot 0 of the second."""
    decoder = ObservationDecoder(
        EnvironmentSpec((TensorSpec("observation", (), "float32"),), ActionSpec.discrete(3))
    )

    def make(slots: list[int], places: list[int]) -> Message:
        content = policy_pb2.SlotObservations(
            slots=slots,
            step_numbers=[0] * len(slots),
            leaves=[np.zeros(len(slots), np.float32).tobytes()],
            rewards=[0.0] * len(slots),
        )
        return Message(content, np.array(places))

    with pytest.raises(InvalidRequestError, match="slots: expected"):
        decoder.decode([make(slots, [0, 1]), make([1], [2, 3])])


@pytest.mark.parametrize("bad", [1e10, -1e10, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["rewards", "observation"])
def test_number_that_a_learner_refuses_is_the_clients_error(field: str, bad: float) -> None:
    """Seen to fail with 1e10, for which the learner banned the server and with it all clients."""
    leaf = TensorSpec("observation", (2,), "float32")
    decoder = ObservationDecoder(EnvironmentSpec((leaf,), ActionSpec.discrete(3)))

    def decode(reward: float, number: float) -> None:
        leaves = [np.array([0.0, number], np.float32).tobytes()]
        message = policy_pb2.SlotObservations(
            slots=[0], step_numbers=[1], rewards=[reward], leaves=leaves
        )
        decoder.decode([Message(message, np.array([0]))])

    decode(-1e9, 1e9)
    with pytest.raises(InvalidRequestError, match=f"{field}: expected "):
        decode(*((bad, 0.0) if field == "rewards" else (0.0, bad)))
