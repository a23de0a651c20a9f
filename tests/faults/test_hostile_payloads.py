"""Code sent as a tensor, as weights or as a checkpoint never runs (docs/faults.md, 62)."""

from __future__ import annotations

import hashlib
import io
import json
import pickle  # noqa: TID251 (what is to be refused)
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from faults.row_figures import record

from impala_common.codec.tensors import unpack_tensor
from impala_common.codec.weights import unpack_snapshot
from impala_common.errors import CheckpointError, ImpalaError, InvalidUnrollError
from impala_common.run.checkpoint_manifest import Manifest, pack_manifest
from impala_common.run.checkpoints import CheckpointStore
from impala_rl.v1 import tensor_pb2


class _Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self._path,))


def _payloads(canary: Path) -> dict[str, bytes]:
    """Returns what somebody might smuggle in, by what it is."""
    pickled = pickle.dumps(_Canary(canary))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:  # the form of torch.save
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3")
    arrays = io.BytesIO()
    np.savez(arrays, a=np.array([_Canary(canary)], dtype=object))
    array = io.BytesIO()
    np.save(array, np.array([_Canary(canary)], dtype=object))
    whole = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "pickle": pickled,
        "torch.save": zipped.getvalue(),
        "npz": arrays.getvalue(),
        "npy": array.getvalue(),
        "safetensors, header too long": struct.pack("<Q", 1 << 62) + b"{}",
        "safetensors, header of a pickle": struct.pack("<Q", len(pickled)) + pickled,
        "safetensors, overlap": _safetensors({"a": whole, "b": whole}, bytes(8)),
        "safetensors, beyond the end": _safetensors(
            {"a": whole | {"data_offsets": [0, 80], "shape": [20]}}, bytes(8)
        ),
        "safetensors, unused bytes": _safetensors({"a": whole}, bytes(8) + pickled),
        "safetensors, foreign type": _safetensors({"a": whole | {"dtype": "OBJECT"}}, bytes(8)),
        "safetensors, type of eight bits": _safetensors(
            {"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)
        ),
        "safetensors, overflowing shape": _safetensors(
            {"a": whole | {"shape": [1 << 40, 1 << 40]}}, bytes(8)
        ),
    }


def _safetensors(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


KINDS = sorted(_payloads(Path("/nowhere")))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(_Canary(path)))
    assert path.exists(), "the canary sings"
    path.unlink()
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_code_as_a_tensor_is_bytes_or_refused(canary: Path, kind: str) -> None:
    data = _payloads(canary)[kind]
    for dtype in (tensor_pb2.DTYPE_FLOAT32, tensor_pb2.DTYPE_UNSPECIFIED, 99):
        for codec in (tensor_pb2.CODEC_UNSPECIFIED, tensor_pb2.CODEC_ZSTD, 7):
            message = tensor_pb2.Tensor(dtype=dtype, shape=[3], data=data, codec=codec)
            with pytest.raises(InvalidUnrollError):
                unpack_tensor(message, "observation", "float32", (3,))
    as_bytes = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_UINT8, shape=[len(data)], data=data)
    array = unpack_tensor(as_bytes, "observation", "uint8", (len(data),))
    assert array.tobytes() == data
    assert not canary.exists()
    record(62, payload=kind, canaries=0)


@pytest.mark.parametrize("kind", KINDS)
def test_code_as_weights_is_refused(canary: Path, kind: str) -> None:
    """F8_E4M3 was seen to end in a KeyError of the safetensors library."""
    with pytest.raises(ImpalaError, match="cannot be read"):
        unpack_snapshot(_payloads(canary)[kind])
    assert not canary.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_code_as_a_checkpoint_is_refused(tmp_path: Path, canary: Path, kind: str) -> None:
    data = _payloads(canary)[kind]
    folder = tmp_path / "checkpoints" / "step-000000000001"
    folder.mkdir(parents=True)
    file = (hashlib.sha256(data).hexdigest(), len(data))
    good = pack_manifest(Manifest(step=1, state={}, files={"weights.safetensors": file}))
    (folder / "weights.safetensors").write_bytes(data)
    store = CheckpointStore(tmp_path / "checkpoints")

    for manifest in (good, data):
        (folder / "manifest.json").write_bytes(manifest)
        with pytest.raises(CheckpointError):
            store.load_newest()
    assert not canary.exists()
