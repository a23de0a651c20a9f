"""The manifest of a checkpoint: lists its files and verifies each by digest.

`manifest.json` holds the step, the state, size and sha256 of every file of
tensors, and a digest of itself. Used by `impala_common.run.checkpoints` only.
Files may be damaged or planted: sizes are checked before contents, nothing is executed, and every
error is a CheckpointError with the expected value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from impala_common.errors import CheckpointError, CheckpointUnreadableError

FORMAT = "impala-rl checkpoint"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_FILE_BYTES = 64 * 2**30
"""Largest file of tensors: bounds what is allocated for a manifest that lies."""
TENSORS_SUFFIX = ".safetensors"
BEST = "best"
"""Name of the checkpoint with the best evaluation during training."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST_KEY = "manifest_sha256"


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of manifest.json.

    Attributes:
      step: agent steps trained.
      state: everything else that a resume needs.
      files: sha256 and bytes of each file of tensors, by its name.
    """

    step: int
    state: dict[str, Any]  # Any: JSON
    files: dict[str, tuple[str, int]]


def is_name(name: str) -> bool:
    """Returns whether `name` is safe as a file name."""
    return _NAME.fullmatch(name) is not None


def validate_name(name: str) -> None:
    """Raises CheckpointError unless `name` is safe as a file name."""
    if not is_name(name):
        raise CheckpointError(
            f"{name[:80]!r} is no checkpoint name: expected 1 to 64 letters, digits, "
            "'.', '_' or '-', the first a letter or digit"
        )


def pack_manifest(manifest: Manifest) -> bytes:
    """Returns the text of manifest.json; the same for the same manifest.

    Raises:
      CheckpointUnreadableError: it would be too large to be read again, or lists a file that is.
    """
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "step": manifest.step,
        "files": {
            file: {"sha256": digest, "bytes": num_bytes}
            for file, (digest, num_bytes) in manifest.files.items()
        },
        # Through JSON and back: keys that are numbers become strings, as readers see them.
        "state": json.loads(json.dumps(manifest.state, allow_nan=False)),
    }
    data = {**content, _DIGEST_KEY: _compute_digest(content)}
    # No newline at the end: the last byte matters, so that any truncation is noticed.
    packed = json.dumps(data, indent=1, allow_nan=False).encode()
    if len(packed) > MAX_MANIFEST_BYTES:
        raise CheckpointUnreadableError(
            f"{MANIFEST} would have {len(packed)} bytes: expected at most {MAX_MANIFEST_BYTES}"
        )
    for file, (_, num_bytes) in manifest.files.items():
        if num_bytes > MAX_FILE_BYTES:
            raise CheckpointUnreadableError(
                f"{file} has {num_bytes} bytes: expected at most {MAX_FILE_BYTES}"
            )
    return packed


def unpack_manifest(path: Path, data: bytes) -> Manifest:
    """Parses the output of `pack_manifest`.

    Args:
      path: file of `data`, for messages.
      data: the file's bytes.

    Raises:
      CheckpointError: `data` is damaged, foreign, or of another version.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: expected JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is damaged or foreign: expected format {FORMAT!r}")
    if content.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {content.get('version')!r}: expected {FORMAT_VERSION}"
        )
    try:
        if content.pop(_DIGEST_KEY, None) != _compute_digest(content):
            raise CheckpointError(f"{path} is damaged: its digest does not match")
        step, state = content["step"], content["state"]
        files = {
            file: (entry["sha256"], entry["bytes"]) for file, entry in content["files"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path} is foreign: expected step, state and files") from error
    if type(step) is not int or not isinstance(state, dict):
        raise CheckpointError(f"{path} is foreign: expected a whole step and a table of state")
    for file, (digest, num_bytes) in files.items():
        validate_name(file.removesuffix(TENSORS_SUFFIX))
        if not file.endswith(TENSORS_SUFFIX) or type(num_bytes) is not int or num_bytes < 0:
            raise CheckpointError(f"{path} is foreign: expected safetensors files, got {file!r}")
        if num_bytes > MAX_FILE_BYTES:
            raise CheckpointError(
                f"{path} is foreign: {file} is said to have {num_bytes} bytes, expected at most "
                f"{MAX_FILE_BYTES}"
            )
        if not isinstance(digest, str):
            raise CheckpointError(f"{path} is foreign: expected a sha256 of {file}")
    return Manifest(step=step, state=state, files=files)


def read_tensors(path: Path, digest: str, num_bytes: int) -> dict[str, np.ndarray]:
    """Returns the tensors of one file after verifying its size and sha256.

    Raises:
      CheckpointError: the file is not the one the manifest lists.
      OSError: it cannot be read.
    """
    data = read_verified(path, digest, num_bytes)
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is foreign: expected safetensors ({error})") from error
    return {name: np.require(array, requirements="W") for name, array in arrays.items()}


def read_group(folder: Path, group: str) -> bytes:
    """Returns one group of tensors of the checkpoint in `folder` as a safetensors file, verified.

    Raises:
      CheckpointError: it is missing or damaged.
    """
    path = folder / f"{group}{TENSORS_SUFFIX}"
    try:
        manifest = unpack_manifest(
            folder / MANIFEST, read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES)
        )
        return read_verified(path, *manifest.files[path.name])
    except (OSError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}") from error


def validate_readable(folder: Path, manifest: bytes) -> None:
    """Reads back what was just written to `folder`: manifest, sizes and tables of contents.

    Raises:
      CheckpointUnreadableError: it could not be resumed from.
    """
    path = folder / MANIFEST
    try:
        if read_bytes(path, MAX_MANIFEST_BYTES) != manifest:
            raise CheckpointError(f"{path} reads back differently than written")
        for file, (_, num_bytes) in unpack_manifest(path, manifest).files.items():
            found = (folder / file).lstat().st_size
            if found != num_bytes:
                raise CheckpointError(f"{file} has {found} bytes in place of {num_bytes}")
            with safetensors.safe_open(folder / file, framework="numpy"):
                pass  # its table of contents is well formed and within the format's limits
    except (OSError, CheckpointError, safetensors.SafetensorError) as error:
        raise CheckpointUnreadableError(f"{folder} cannot be read back: {error}") from error


def read_verified(path: Path, digest: str, num_bytes: int) -> bytes:
    """Returns a file's bytes after verifying its size and sha256."""
    data = read_bytes(path, num_bytes)
    if len(data) != num_bytes:
        more = "more" if len(data) > num_bytes else len(data)
        raise CheckpointError(f"{path} is damaged: expected {num_bytes} bytes, got {more}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path} is damaged: its sha256 does not match the manifest")
    return data


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Returns a file's bytes, at most one more than `max_bytes`; refuses links.

    No more memory is taken than the file has bytes, whatever `max_bytes` is.
    """
    # O_NONBLOCK: opening a pipe someone put there must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(min(max_bytes, os.fstat(descriptor).st_size) + 1)


def _compute_digest(content: dict[str, Any]) -> str:
    """Returns the digest of the manifest's content, which the manifest also stores."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
