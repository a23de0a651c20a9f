"""ObservationDecoder: what a thin client's observations must be."""

from __future__ import annotations

import numpy as np
import pytest

from impala_common.errors import InvalidRequestError
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_policy_server.observation_decoder import ObservationDecoder
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

    decoded = decoder.decode(make_message([0, 1, 1], dtype), 1)

    assert decoded.leaves["observation/action_mask"].tolist() == [[0, 1, 1]]
    with pytest.raises(InvalidRequestError, match=r"action_mask: expected each 0 \(illegal\)"):
        decoder.decode(make_message([0, bad, bad], dtype), 1)


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
        decoder.decode(message, 1)

    decode(-1e9, 1e9)
    with pytest.raises(InvalidRequestError, match=f"{field}: expected "):
        decode(*((bad, 0.0) if field == "rewards" else (0.0, bad)))
