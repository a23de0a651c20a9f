"""What the conformance kit knows of clients: their hello, and actions in the form it declares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from impala_conformance.action_maker import ActionMaker
from impala_conformance.environment import make_default_environment
from impala_conformance.hello_checks import find_hello_faults
from impala_rl.v1 import policy_pb2, spec_pb2, tensor_pb2
from impala_thin import Environment

Hello = policy_pb2.PlayHello


def make_hello() -> Hello:
    """Returns the hello of an environment with two leaves, an image and a mask among them."""
    environment = make_default_environment()
    environment.observation_leaves[0].name = "observation/image"
    environment.observation_leaves[0].shape[:] = [4, 4, 3]
    environment.observation_leaves[0].role = tensor_pb2.TENSOR_ROLE_IMAGE_HWC
    mask = environment.observation_leaves.add()
    mask.name, mask.dtype, mask.shape[:] = "observation/mask", tensor_pb2.DTYPE_BOOL, [2]
    mask.role = tensor_pb2.TENSOR_ROLE_ACTION_MASK
    return Hello(
        client_id="a", client_run_id=1, protocol_version=1, environment=environment, slot_count=1
    )


def test_hello_that_keeps_its_contract_has_no_faults() -> None:
    assert not list(find_hello_faults(make_hello()))


def unsort(hello: Hello) -> None:
    hello.environment.observation_leaves.reverse()


def rename(hello: Hello) -> None:
    hello.environment.observation_leaves[0].name = "image"


def flatten(hello: Hello) -> None:
    hello.environment.observation_leaves[0].shape[:] = [48]


def widen_mask(hello: Hello) -> None:
    hello.environment.observation_leaves[1].shape[:] = [3]


def add_mask(hello: Hello) -> None:
    hello.environment.observation_leaves[0].CopyFrom(hello.environment.observation_leaves[1])


def forget_type(hello: Hello) -> None:
    hello.environment.observation_leaves[0].dtype = tensor_pb2.DTYPE_UNSPECIFIED


def stack(hello: Hello) -> None:
    hello.environment.frame_stack = 4


def forget_starts(hello: Hello) -> None:
    del hello.environment.action.parts[0].starts[:]


def forget_parts(hello: Hello) -> None:
    del hello.environment.action.parts[:]


def empty_choice(hello: Hello) -> None:
    hello.environment.action.parts[0].sizes[:] = [0]


def swap_bounds(hello: Hello) -> None:
    part = hello.environment.action.parts[0]
    part.Clear()
    part.tensor.name, part.tensor.dtype = "action", tensor_pb2.DTYPE_FLOAT32
    part.kind = spec_pb2.ACTION_KIND_GAUSSIAN
    part.lows[:], part.highs[:] = [1.0], [-1.0]
    del hello.environment.observation_leaves[1]


@pytest.mark.parametrize(
    "change",
    [
        unsort,
        rename,
        flatten,
        widen_mask,
        add_mask,
        forget_type,
        stack,
        forget_starts,
        forget_parts,
        empty_choice,
        swap_bounds,
    ],
)
def test_environment_with_one_fault_is_found(change: Callable[[Hello], None]) -> None:
    hello = make_hello()
    change(hello)

    assert {rule for rule, _ in find_hello_faults(hello)} == {"environment"}


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 65, "ä", "a\n"])
def test_name_that_does_not_match_is_found(name: str) -> None:
    hello = make_hello()
    hello.client_id = name

    assert [rule for rule, _ in find_hello_faults(hello)] == ["client-id"]


def test_actions_go_through_all_choices_and_keep_to_the_mask() -> None:
    environment = Environment.simple((4,), num_actions=5, has_mask=True).spec
    maker = ActionMaker(environment)
    legal = bytes([0, 1, 1, 0, 1])
    (mask,) = (
        index
        for index, leaf in enumerate(environment.observation_leaves)
        if leaf.role == tensor_pb2.TENSOR_ROLE_ACTION_MASK
    )
    leaves = [b"", b""]
    leaves[mask] = legal

    edges = {maker.make(leaves, edge)[0] for edge in range(maker.num_rounds)}
    drawn = {maker.make(leaves)[0] for _ in range(200)}

    assert edges == drawn == {np.int64(choice).tobytes() for choice in (1, 2, 4)}


def test_choices_of_a_large_space_are_tried_at_both_ends() -> None:
    maker = ActionMaker(Environment.simple((4,), num_actions=1000).spec)

    edges = [int(np.frombuffer(maker.make([], edge)[0], "<i8")[0]) for edge in range(64)]

    assert maker.num_rounds == 64
    assert (min(edges), max(edges), len(set(edges))) == (0, 999, 64)


def test_numbers_are_taken_at_their_bounds_where_these_are_finite() -> None:
    part = spec_pb2.ActionPart(
        tensor=tensor_pb2.TensorSpec(name="action", dtype=tensor_pb2.DTYPE_FLOAT32, shape=[3]),
        kind=spec_pb2.ACTION_KIND_GAUSSIAN,
        lows=[-2.0, float("-inf"), float("-inf")],
        highs=[2.0, 5.0, float("inf")],
    )
    environment = spec_pb2.EnvironmentSpec(action=spec_pb2.ActionSpec(parts=[part]))
    maker = ActionMaker(environment)

    edges = [np.frombuffer(maker.make([], edge)[0], "<f4").tolist() for edge in range(3)]

    assert edges == [[-2.0, 4.0, -1.0], [0.0, 4.5, -0.5], [2.0, 5.0, 0.0]]
