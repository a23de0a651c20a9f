"""Unrolls to messages and back; each kind of wrong message is refused with its own error."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard

from impala_common.codec.frames import join_frames
from impala_common.codec.tensors import digest_of, pack_tensor
from impala_common.codec.unrolls import UnrollDecoder
from impala_common.errors import InvalidUnrollError
from impala_common.spec.specs import DTYPES, ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec
from impala_common.testing.unrolls import (
    make_frames_spec,
    make_unrolls,
    make_vector_spec,
    pack_stacked,
)
from impala_rl.v1 import tensor_pb2, unroll_pb2

VECTOR, FRAMES = make_vector_spec(), make_frames_spec()
MAX_UNROLLS = 4
Change = Callable[[unroll_pb2.UnrollBatch], Any]


def leaf_index(spec: UnrollSpec, name: str) -> int:
    """Returns the place of leaf `name` on the wire."""
    return [leaf.tensor.name for leaf in spec.leaves].index(name)


def sealed(message: unroll_pb2.UnrollBatch) -> unroll_pb2.UnrollBatch:
    """Returns `message` with the digest of what it holds now, as its sender would."""
    tensors = list(message.leaves)
    if message.HasField("frames"):
        tensors += [message.frames.unique_frames, message.frames.frame_index]
    message.digest = digest_of(tensor.data for tensor in tensors)
    return message


def packed(spec: UnrollSpec, num_unrolls: int = 3, compress: bool = False) -> Any:
    return pack_stacked(make_unrolls(spec, num_unrolls, seed=3), spec, compress)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("num_unrolls", [1, 4])
def test_decode_of_packed_unrolls_gives_every_leaf_back(num_unrolls: int, compress: bool) -> None:
    unrolls = make_unrolls(VECTOR, num_unrolls, seed=1)
    message = unroll_pb2.UnrollBatch.FromString(
        pack_stacked(unrolls, VECTOR, compress).SerializeToString()
    )

    decoded = UnrollDecoder(VECTOR, MAX_UNROLLS).decode(message)

    assert decoded.num_unrolls == num_unrolls
    assert decoded.frames is None
    assert set(decoded.leaves) == {leaf.tensor.name for leaf in VECTOR.leaves}
    for name, array in decoded.leaves.items():
        np.testing.assert_array_equal(array, unrolls[name], err_msg=name, strict=True)
        assert not array.flags.writeable


@pytest.mark.parametrize("compress", [False, True])
def test_decode_of_packed_frame_stacks_gives_the_stacks_back(compress: bool) -> None:
    spec = make_frames_spec(unroll_length=9, stack=4, side=16)
    unrolls = make_unrolls(spec, 3, seed=2)
    unrolls["observation"][:, 1] = 7  # this one compresses
    message = pack_stacked(unrolls, spec, compress)

    decoded = UnrollDecoder(spec, MAX_UNROLLS).decode(message)

    assert decoded.frames is not None
    assert "observation" not in decoded.leaves
    np.testing.assert_array_equal(join_frames(decoded.frames), unrolls["observation"])
    assert message.ByteSize() < 0.6 * unrolls["observation"].nbytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_of_observations_of_any_type_gives_them_back(dtype: str) -> None:
    leaves = (TensorSpec("observation/a", (2,), dtype), TensorSpec("observation/b", (), dtype))
    spec = UnrollSpec(3, EnvironmentSpec(leaves, ActionSpec.discrete(2)))
    unrolls = make_unrolls(spec, 2, seed=4)

    decoded = UnrollDecoder(spec, 2).decode(pack_stacked(unrolls, spec, compress=False))

    for leaf in leaves:
        np.testing.assert_array_equal(decoded.leaves[leaf.name], unrolls[leaf.name], strict=True)


@pytest.mark.parametrize("name", [leaf.tensor.name for leaf in VECTOR.leaves])
@pytest.mark.parametrize("what", ["shape", "dtype", "length", "codec", "rows", "zstd size"])
def test_decode_with_any_one_leaf_corrupt_names_it(name: str, what: str) -> None:
    message = packed(VECTOR)
    tensor = message.leaves[leaf_index(VECTOR, name)]
    if what == "shape":
        tensor.shape[-1] += 1
    elif what == "rows":
        del tensor.shape[0]
    elif what == "dtype":
        tensor.dtype = tensor_pb2.DTYPE_UINT16
    elif what == "length":
        tensor.data += b"\0"
    elif what == "codec":
        tensor.codec = 9
    else:
        tensor.codec, tensor.data = 1, zstandard.ZstdCompressor().compress(bytes(1 << 24))

    with pytest.raises(InvalidUnrollError, match=f"^{name}: "):
        UnrollDecoder(VECTOR, MAX_UNROLLS).decode(sealed(message))


FLOATS = ["observation", "behaviour_policy_logits", "rewards", "previous_reward"]
FLOATS.append("initial_agent_state/0")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", FLOATS)
def test_decode_with_one_number_not_finite_names_the_leaf(name: str, bad: float) -> None:
    unrolls = make_unrolls(VECTOR, 3, seed=3)
    unrolls[name].flat[-1] = bad

    with pytest.raises(InvalidUnrollError, match=f"^{name}: expected finite numbers"):
        UnrollDecoder(VECTOR, MAX_UNROLLS).decode(pack_stacked(unrolls, VECTOR, compress=False))


def test_decode_with_a_number_just_too_large_says_which() -> None:
    """Seen to fail: "expected at most 1e+09 in absolute value, got 1e+09"."""
    unrolls = make_unrolls(VECTOR, 3, seed=3)
    unrolls["rewards"][0, 0] = -1_000_000_064.0  # the next float32 beyond the limit
    message = pack_stacked(unrolls, VECTOR, compress=False)

    with pytest.raises(InvalidUnrollError, match=r"rewards: expected at most 1e\+09.*1000000064$"):
        UnrollDecoder(VECTOR, MAX_UNROLLS).decode(message)


@pytest.mark.parametrize("bad", [-1, 5, 2**62])
@pytest.mark.parametrize("name", ["actions", "previous_action"])
def test_decode_with_action_out_of_range_names_it(name: str, bad: int) -> None:
    unrolls = make_unrolls(VECTOR, 3, seed=3)
    unrolls[name].flat[1] = bad

    with pytest.raises(InvalidUnrollError, match=rf"^{name}: expected values in \[0, 5\)"):
        UnrollDecoder(VECTOR, MAX_UNROLLS).decode(pack_stacked(unrolls, VECTOR, compress=False))


def with_frame_index(value: int) -> Change:
    def change(message: unroll_pb2.UnrollBatch) -> None:
        shape = tuple(message.frames.frame_index.shape)
        index = np.frombuffer(message.frames.frame_index.data, np.int32).reshape(shape).copy()
        index[2, 1, 0] = value
        message.frames.frame_index.CopyFrom(pack_tensor(index))

    return change


def with_counts(*counts: int) -> Change:
    def change(message: unroll_pb2.UnrollBatch) -> None:
        message.frames.frame_counts[:] = counts

    return change


def with_count(count: int) -> Change:
    return lambda message: setattr(message, "unroll_count", count)


WRONG_BATCHES: dict[str, tuple[UnrollSpec, Change, str]] = {
    "no unrolls": (VECTOR, with_count(0), r"unroll_count: expected 1 to 4, got 0"),
    "negative count": (VECTOR, with_count(-1), "unroll_count: expected 1 to 4, got -1"),
    "too many unrolls": (VECTOR, with_count(5), "unroll_count: expected 1 to 4, got 5"),
    "fewer unrolls": (VECTOR, with_count(2), "observation: expected shape"),
    "leaf missing": (VECTOR, lambda m: m.leaves.pop(), "leaves: expected 11, got 10"),
    "leaf too many": (VECTOR, lambda m: m.leaves.add(), "leaves: expected 11, got 12"),
    "no leaves": (VECTOR, lambda m: m.ClearField("leaves"), "leaves: expected 11, got 0"),
    "frames unasked": (VECTOR, lambda m: m.frames.SetInParent(), "frames: expected unset"),
    "frames missing": (FRAMES, lambda m: m.ClearField("frames"), "frames: expected set"),
    "frames and leaf": (
        FRAMES,
        lambda m: m.leaves[0].CopyFrom(pack_tensor(np.zeros(3))),
        "observation: expected empty",
    ),
    "index too large": (FRAMES, with_frame_index(14), "frame_index: points outside"),
    "index huge": (FRAMES, with_frame_index(2**31 - 1), "frame_index: points outside"),
    "index negative": (FRAMES, with_frame_index(-1), "frame_index: points outside"),
    "no counts": (FRAMES, with_counts(), r"frame_counts: expected 3 numbers in \[1, 15\]"),
    "count missing": (FRAMES, with_counts(5, 5), "frame_counts: expected 3"),
    "count too large": (FRAMES, with_counts(16, 5, 5), "frame_counts: expected 3"),
    "count zero": (FRAMES, with_counts(5, 0, 5), "frame_counts: expected 3"),
    "count negative": (FRAMES, with_counts(5, -5, 5), "frame_counts: expected 3"),
    "other counts": (FRAMES, with_counts(15, 15, 15), "unique_frames: expected shape"),
    "index type": (
        FRAMES,
        lambda m: setattr(m.frames.frame_index, "dtype", tensor_pb2.DTYPE_UINT32),
        "frame_index: expected dtype int32, got uint32",
    ),
    "frame type": (
        FRAMES,
        lambda m: setattr(m.frames.unique_frames, "dtype", tensor_pb2.DTYPE_INT8),
        "unique_frames: expected dtype uint8, got int8",
    ),
}


@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_decode_of_wrong_batch_names_what_is_wrong(case: str) -> None:
    spec, change, text = WRONG_BATCHES[case]
    message = packed(spec)
    change(message)

    with pytest.raises(InvalidUnrollError, match=f"^{text}"):
        UnrollDecoder(spec, MAX_UNROLLS).decode(sealed(message))


def test_decode_of_float_frames_that_are_not_finite_is_refused() -> None:
    leaf = TensorSpec("observation", (2, 3), "float32")
    spec = UnrollSpec(2, EnvironmentSpec((leaf,), ActionSpec.discrete(2), frame_stack=2))
    unrolls = make_unrolls(spec, 1, seed=1)
    unrolls["observation"][1, 0, 1, 2] = np.nan

    with pytest.raises(InvalidUnrollError, match=r"^unique_frames: expected finite numbers"):
        UnrollDecoder(spec, 1).decode(pack_stacked(unrolls, spec, compress=False))


@pytest.mark.parametrize("spec", [VECTOR, FRAMES], ids=["vector", "frames"])
def test_decode_with_any_byte_of_data_flipped_finds_damage(spec: UnrollSpec) -> None:
    clean = packed(spec)
    tensors = list(range(len(clean.leaves))) + (["u", "i"] if spec.uses_unique_frames else [])
    for which in tensors:
        message = unroll_pb2.UnrollBatch()
        message.CopyFrom(clean)
        named = {"u": message.frames.unique_frames, "i": message.frames.frame_index}
        tensor = named[which] if isinstance(which, str) else message.leaves[which]
        if not tensor.data:
            continue
        tensor.data = bytes([tensor.data[0] ^ 1]) + tensor.data[1:]

        with pytest.raises(InvalidUnrollError, match=r"^digest: the data was damaged"):
            UnrollDecoder(spec, MAX_UNROLLS).decode(message)


def test_decode_with_wrong_digest_is_refused_before_anything_is_decompressed() -> None:
    message = packed(VECTOR)
    message.leaves[0].data = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    message.leaves[0].codec = tensor_pb2.CODEC_ZSTD

    tracemalloc.start()
    try:
        with pytest.raises(InvalidUnrollError, match=r"^digest: "):
            UnrollDecoder(VECTOR, MAX_UNROLLS).decode(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


def test_decode_of_unrolls_of_another_specification_is_refused() -> None:
    longer = dataclasses.replace(VECTOR, unroll_length=VECTOR.unroll_length + 1)

    with pytest.raises(InvalidUnrollError, match=r"^observation: expected shape \(6, 3, 3\)"):
        UnrollDecoder(longer, MAX_UNROLLS).decode(packed(VECTOR))
