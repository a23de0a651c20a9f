"""Arrays to messages and back; errors for damaged or false messages."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from impala_common.codec.tensors import digest_of, pack_tensor, unpack_tensor
from impala_common.errors import InvalidUnrollError
from impala_common.spec.specs import DTYPES
from impala_rl.v1 import tensor_pb2 as pb

ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=4, max_side=5, min_side=0)
    )
)


@given(array=ARRAYS, compress=st.booleans())
@settings(max_examples=200, deadline=None)
def test_unpack_tensor_of_packed_one_gives_it_back(array: Any, compress: bool) -> None:
    message = pb.Tensor.FromString(pack_tensor(array, compress).SerializeToString())

    back = unpack_tensor(message, "x", array.dtype.name, array.shape)

    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()  # bit for bit: NaN and -0 too
    assert not back.flags.writeable


@pytest.mark.parametrize("array", [np.zeros((5, 4, 2048)), np.zeros((4, 4096), np.bool_)])
def test_pack_tensor_where_compression_pays_uses_it(array: Any) -> None:
    message = pack_tensor(array, compress=True)

    assert message.codec == pb.CODEC_ZSTD
    assert len(message.data) < array.nbytes / 10
    np.testing.assert_array_equal(unpack_tensor(message, "x", array.dtype.name, array.shape), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(100, np.uint8),  # too small
        np.random.default_rng(1).integers(0, 256, 100_000, np.uint8),  # does not get smaller
    ],
)
def test_pack_tensor_where_compression_does_not_pay_stays_plain(array: Any) -> None:
    message = pack_tensor(array, compress=True)

    assert message.codec == pb.CODEC_UNSPECIFIED
    assert message.data == array.tobytes()


@pytest.mark.parametrize("order", ["F", "strided", "big-endian view"])
def test_pack_tensor_of_array_in_other_layout_sends_c_order(order: str) -> None:
    plain = np.arange(24, dtype=np.int32).reshape(4, 6)
    array = {
        "F": np.asfortranarray(plain),
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "big-endian view": plain.astype(">i4").astype("<i4"),
    }[order]

    assert pack_tensor(array).data == plain.tobytes()


def changed(**fields: Any) -> pb.Tensor:
    """Returns a good float32 [2, 3] message with `fields` put in place of its own."""
    message = pack_tensor(np.ones((2, 3), np.float32))
    for name, value in fields.items():
        if name == "shape":
            del message.shape[:]
            message.shape.extend(value)
        else:
            setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (changed(shape=[3, 2]), r"x: expected shape \(2, 3\), got \(3, 2\)"),
        (changed(shape=[6]), r"x: expected shape \(2, 3\), got \(6,\)"),
        (changed(shape=[]), r"x: expected shape \(2, 3\), got \(\)"),
        (changed(shape=[-2, -3]), r"x: expected shape"),
        (changed(shape=[1] * 9), "x: expected at most 8 dimensions"),
        (changed(dtype=pb.DTYPE_FLOAT64), "x: expected dtype float32, got float64"),
        (changed(dtype=pb.DTYPE_UNSPECIFIED), "x: expected dtype float32, got unknown type 0"),
        (changed(dtype=99), "x: expected dtype float32, got unknown type 99"),
        (changed(data=b""), "x: expected 24 bytes, got 0"),
        (changed(data=b"\0" * 23), "x: expected 24 bytes, got 23"),
        (changed(data=b"\0" * 25), "x: expected 24 bytes, got 25"),
        (changed(codec=7), "x: unknown codec 7"),
        (changed(codec=pb.CODEC_ZSTD), "x: damaged zstd data"),
    ],
)
def test_unpack_tensor_of_corrupt_message_names_what_is_wrong(
    message: pb.Tensor, text: str
) -> None:
    with pytest.raises(InvalidUnrollError, match=text):
        unpack_tensor(message, "x", "float32", (2, 3))


def test_unpack_tensor_of_other_bytes_as_booleans_is_refused() -> None:
    message = pack_tensor(np.array([0, 1, 2], np.uint8))
    message.dtype = pb.DTYPE_BOOL

    with pytest.raises(InvalidUnrollError, match="x: expected booleans"):
        unpack_tensor(message, "x", "bool", (3,))


def compressed(data: bytes, shape: tuple[int, ...] = (1024,)) -> pb.Tensor:
    return pb.Tensor(dtype=pb.DTYPE_UINT8, shape=shape, data=data, codec=pb.CODEC_ZSTD)


@pytest.mark.parametrize("num_bytes", [0, 1023, 1025, 1 << 30])
def test_unpack_tensor_of_zstd_that_declares_another_size_is_refused(num_bytes: int) -> None:
    """Seen to fail without the check of the declared size."""
    bomb = zstandard.ZstdCompressor().compress(bytes(num_bytes))

    tracemalloc.start()
    try:
        with pytest.raises(InvalidUnrollError, match=f"declares {num_bytes}"):
            unpack_tensor(compressed(bomb), "x", "uint8", (1024,))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


def test_unpack_tensor_of_zstd_that_lies_about_its_size_is_refused() -> None:
    """The frame says 1024 bytes and holds 4096."""
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(4096)))
    at = frame.index((4096 - 256).to_bytes(2, "little"), 4)  # two-byte content size, less 256
    frame[at : at + 2] = (1024 - 256).to_bytes(2, "little")
    assert zstandard.frame_content_size(bytes(frame)) == 1024

    with pytest.raises(InvalidUnrollError, match=r"x: damaged zstd data"):
        unpack_tensor(compressed(bytes(frame)), "x", "uint8", (1024,))


def test_unpack_tensor_of_zstd_without_declared_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1024))

    with pytest.raises(InvalidUnrollError, match="declares -1"):
        unpack_tensor(compressed(frame), "x", "uint8", (1024,))


@pytest.mark.parametrize("cut", [0, 1, 4, 8, -1])
def test_unpack_tensor_of_cut_zstd_is_refused(cut: int) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(range(256)) * 4)

    with pytest.raises(InvalidUnrollError, match=r"^x: "):
        unpack_tensor(compressed(frame[:cut]), "x", "uint8", (1024,))


def test_unpack_tensor_of_zstd_with_trailing_bytes_is_refused() -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(1024))

    with pytest.raises(InvalidUnrollError, match="x: damaged zstd data"):
        unpack_tensor(compressed(frame + b"more"), "x", "uint8", (1024,))


@given(data=st.binary(max_size=200), shape=st.lists(st.integers(-3, 3), max_size=3))
@settings(max_examples=300, deadline=None)
def test_unpack_tensor_of_any_bytes_returns_array_or_invalid(data: bytes, shape: list[int]) -> None:
    message = pb.Tensor.FromString(pack_tensor(np.zeros(3, np.uint8)).SerializeToString())
    message.data, message.codec = data, pb.CODEC_ZSTD
    message.shape[:] = shape

    with pytest.raises(InvalidUnrollError, match=r"^x: "):
        unpack_tensor(message, "x", "uint8", (7,))


@pytest.mark.parametrize("begins_with_noise", [False, True])
def test_pack_tensor_of_a_large_one_with_noise_in_it_is_compressed_where_that_pays(
    begins_with_noise: bool,
) -> None:
    """Seen to fail with a sample from the beginning only."""
    noise = np.random.default_rng(1).integers(0, 256, (10, 7056), np.uint8)
    calm = np.zeros((190, 7056), np.uint8)
    array = np.concatenate([noise, calm] if begins_with_noise else [calm, noise])

    assert pack_tensor(array, compress=True).codec == pb.CODEC_ZSTD


def test_pack_tensor_of_noise_that_repeats_from_row_to_row_is_compressed() -> None:
    """Seen to fail with samples of less than two rows."""
    row = np.random.default_rng(1).integers(0, 256, 100_000, np.uint8)

    message = pack_tensor(np.tile(row, (80, 1)), compress=True)

    assert message.codec == pb.CODEC_ZSTD
    assert len(message.data) < 200_000


def test_digest_of_data_depends_on_data_and_order() -> None:
    one, two = np.array([1]).tobytes(), np.array([2]).tobytes()

    assert digest_of([one, two]) == digest_of([one, two])
    assert len({digest_of([one, two]), digest_of([two, one]), digest_of([one])}) == 3
