"""impala_thin describes and encodes spaces as ordinary actors do, without their code."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from impala_actor.environments.actions import ActionDecoder, make_action_spec
from impala_actor.environments.observations import ObservationEncoder
from impala_actor.environments.spaces import make_environment_spec
from impala_actor.environments.text_parts import leave_out_text
from impala_common.codec.specs import pack_environment_spec
from impala_common.errors import UnsupportedSpaceError
from impala_policy_server.action_encoder import ActionEncoder
from impala_thin import Environment, RefusedError

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
OBSERVATIONS = [
    BOX,
    spaces.Box(0, 255, (84, 84, 3), np.uint8),
    spaces.Box(0, 255, (4, 84, 84), np.uint8),
    spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiBinary(4),
    spaces.Dict(
        {"b": BOX, "a/x": spaces.Discrete(2), "c": spaces.Tuple([BOX, spaces.Discrete(3)])}
    ),
]
ACTIONS = [
    spaces.Discrete(4),
    spaces.Discrete(4, start=-1),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiBinary(3),
    spaces.Box(-2.0, 4.0, (2,), np.float32),
    spaces.Box(-np.inf, np.inf, (1, 2), np.float64),
    spaces.Box(np.array([-3, 0]), np.array([4, 1023]), (2,), np.int32),
    spaces.Box(0, 255, (1, 2), np.uint8),
    spaces.Dict({"z": spaces.Discrete(2), "a": spaces.Tuple([BOX, spaces.MultiBinary(2)])}),
    spaces.Dict({"0": spaces.Discrete(2), "1": spaces.Discrete(3)}),
    spaces.Dict({"a/b": spaces.Discrete(2), "\u00fc": spaces.Tuple([BOX]), "a": BOX}),
]


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_observation_space_has_the_specification_and_bytes_of_an_actor(
    space: spaces.Space[Any],
) -> None:
    ours = Environment.from_spaces(space, ACTIONS[0])
    theirs = make_environment_spec(space, ACTIONS[0])
    assert ours.spec == pack_environment_spec(theirs)

    space.seed(3)
    observation = concatenate(
        space, [space.sample() for _ in range(3)], create_empty_array(space, 3)
    )
    encoded = ObservationEncoder(space, 3)(observation)
    assert ours.encode(observation, 3) == [
        encoded[leaf.name].tobytes() for leaf in theirs.observation_leaves
    ]


class Mission(spaces.Space[str]):
    """As MiniGrid's: a space of its own whose values are strings."""

    def __init__(self) -> None:
        super().__init__(None, str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Returns some text."""
        return "go"


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"image": BOX, "mission": Mission()}),
        spaces.Tuple([spaces.Text(5), BOX, spaces.Dict({"words": Mission()}), spaces.Discrete(3)]),
    ],
    ids=["dict", "tuple"],
)
def test_text_beside_numbers_is_left_out_as_by_an_actor(
    space: spaces.Dict | spaces.Tuple, caplog: pytest.LogCaptureFixture
) -> None:
    class Talking(gymnasium.Env[Any, Any]):
        observation_space = space

    theirs = leave_out_text(Talking()).observation_space
    assert Environment.from_spaces(space, ACTIONS[0]).spec == pack_environment_spec(
        make_environment_spec(theirs, ACTIONS[0])
    )
    (record,) = [record for record in caplog.records if record.name.startswith("impala_thin")]
    assert "is text and is left out" in record.message


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_action_space_has_the_specification_and_actions_of_an_actor(
    space: spaces.Space[Any],
) -> None:
    spec = make_action_spec(space)
    ours = Environment.from_spaces(BOX, space)
    assert ours.spec == pack_environment_spec(make_environment_spec(BOX, space))

    random = np.random.default_rng(5)
    shape = (3, *spec.tensor.shape)
    flat = random.integers(0, 2, shape) if spec.tensor.dtype == "int64" else random.random(shape)
    flat = flat.astype(spec.tensor.dtype)
    decoded = ours.decode(ActionEncoder(spec).encode(flat), 3)
    batch = batch_space(space, 3)
    for mine, actors in zip(
        flatten(decoded), flatten(ActionDecoder(space, spec)(flat)), strict=True
    ):
        np.testing.assert_array_equal(mine, actors)
        assert mine.dtype == actors.dtype
        assert mine.flags.writeable, "environments may write into their actions"
    assert type(decoded) is type(batch.sample())


def flatten(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in flatten(value[key])]
    if isinstance(value, tuple):
        return [leaf for one in value for leaf in flatten(one)]
    return [value]


def test_frames_are_declared_stacked_and_sent_alone() -> None:
    frame = spaces.Box(0, 255, (84, 84), np.uint8)
    stack = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    ours = Environment.from_spaces(frame, ACTIONS[0], frame_stack=4)

    assert ours.spec == pack_environment_spec(make_environment_spec(stack, ACTIONS[0], 4))
    assert len(ours.encode(np.zeros((2, 84, 84), np.uint8), 2)[0]) == 2 * 84 * 84


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (spaces.Text(5), ACTIONS[0]),
        (BOX, spaces.Text(5)),
        (BOX, spaces.Graph(BOX, None)),
        (BOX, spaces.Box(0, 1024, (1,), np.int32)),
        (BOX, spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64)),
    ],
    ids=["text", "text action", "graph", "1025 values", "all of int64"],
)
def test_space_of_another_kind_is_refused(
    observation: spaces.Space[Any], action: spaces.Space[Any]
) -> None:
    """By ordinary actors, too."""
    with pytest.raises(RefusedError, match=r"is not supported|has \d+ values"):
        Environment.from_spaces(observation, action)
    with pytest.raises(UnsupportedSpaceError):
        make_environment_spec(observation, action)


@pytest.mark.parametrize("layout", [None, "HWC", "CHW"])
@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8, 3), (4, 4, 4), (5, 5)])
def test_image_layout_that_an_environment_declares_is_that_of_ordinary_actors(
    layout: str | None, shape: tuple[int, ...]
) -> None:
    """Seen to fail: the command of thin actors left what the environment declares out."""
    space = spaces.Dict(image=spaces.Box(0, 255, shape, np.uint8), state=BOX)
    theirs = make_environment_spec(space, ACTIONS[0], image_layout=layout)

    ours = Environment.from_spaces(space, ACTIONS[0], image_layout=layout)

    assert ours.spec == pack_environment_spec(theirs)


def test_image_layout_that_is_none_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"expected .* got 'WHC'"):
        Environment.from_spaces(BOX, ACTIONS[0], image_layout="WHC")


def test_clients_load_neither_torch_nor_gymnasium_nor_the_rest_of_impala_rl() -> None:
    code = (
        "import sys, impala_thin; print(sorted({'torch', 'gymnasium', 'tyro', 'impala_common',"
        "'impala_actor', 'impala_server'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("where", ["beside", "key"])
@pytest.mark.parametrize("mask", [[0.0, -1e9], [0, -100], [0, 2]])
def test_mask_of_other_numbers_than_0_and_1_is_refused(where: str, mask: list[float]) -> None:
    """Seen to fail before: a mask that is added to logits was taken for its opposite."""
    masks = np.array([mask])
    space: spaces.Space[Any] = BOX
    state = np.zeros((1, 3), np.float32)
    observation: Any = state
    if where == "key":
        space = spaces.Dict(state=BOX, action_mask=spaces.Box(-1e9, 2, (2,), np.float64))
        observation = {"state": state, "action_mask": masks.astype(np.float64)}
    environment = Environment.from_spaces(space, spaces.Discrete(2), has_mask=where == "beside")

    with pytest.raises(ValueError, match=r"mask.*expected each 0 \(illegal\) or 1 \(legal\)"):
        environment.encode(observation, 1, masks if where == "beside" else None)


@pytest.mark.parametrize("wrong", [np.array([[0.5, 1.0]]), np.array([[256, 1]]), [[-1, 1]]])
def test_number_that_the_element_type_cannot_hold_is_refused(wrong: Any) -> None:
    """Seen to fail without the comparison: 0.5 and 256 were sent as 0, -1 as 255."""
    environment = Environment.simple((2,), 3, "uint8")

    assert environment.encode([[255, 1.0]], 1) == [b"\xff\x01"]
    with pytest.raises(ValueError, match="observation: expected uint8 numbers, got "):
        environment.encode(wrong, 1)
