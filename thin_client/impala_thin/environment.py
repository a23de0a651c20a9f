"""Environment: what an environment looks like, and its values as bytes of the protocol.

Made by hand for one array and one choice, or from Gymnasium's spaces. Names, order and one-hot
encodings are those of ordinary actors, so both can play in one run.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from impala_rl.v1 import spec_pb2, tensor_pb2
from impala_thin.errors import RefusedError
from impala_thin.nested_spaces import Path, walk_action, walk_observation, with_tuples

Array = np.ndarray[Any, Any]  # Any: shapes and element types as the docstrings say
_MASK = "observation/action_mask"
_MAX_INTEGER_CHOICES = 1024  # as for ordinary actors
_CHW = tensor_pb2.TENSOR_ROLE_IMAGE_CHW


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One numeric part of an observation.

    Attributes:
      spec: its specification on the wire.
      path: keys that lead to it.
      dtype: element type on the wire.
      starts: smallest value of each integer that is sent as a one-hot vector; None: none is.
      sizes: number of values of each.
      one_hot: the same on the wire.
    """

    spec: tensor_pb2.TensorSpec
    path: Path
    dtype: np.dtype[Any]
    starts: Array | None = None
    sizes: Array | None = None
    one_hot: spec_pb2.OneHotLeaf | None = None

    def encode(self, observation: Any, num_slots: int) -> bytes:
        """Returns the bytes of this part of a batch of observations."""
        for key in self.path:
            observation = observation[key]
        values = np.asarray(observation)
        if self.spec.role == tensor_pb2.TENSOR_ROLE_ACTION_MASK:
            require_flags(self.spec.name, values)
        if self.starts is None or self.sizes is None:
            cast = np.ascontiguousarray(values, self.dtype)
            if cast.dtype != values.dtype and cast.dtype.kind != "f" and (cast != values).any():
                found = f"{values.dtype} {values.tolist()}"[:200]
                raise ValueError(f"{self.spec.name}: expected {cast.dtype} numbers, got {found}")
            return cast.tobytes()
        places = values.reshape(num_slots, -1) - self.starts
        if (places < 0).any() or (places >= self.sizes).any():
            raise ValueError(f"{self.spec.name}: value outside its space: {values.tolist()}")
        one_hot = np.zeros((num_slots, int(self.sizes.sum())), np.float32)
        offsets = np.cumsum(self.sizes) - self.sizes
        np.put_along_axis(one_hot, places + offsets, np.float32(1.0), axis=1)
        return one_hot.tobytes()


@dataclasses.dataclass(frozen=True)
class Part:
    """One leaf of an action: its element type, its shape and the path that leads to it."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Environment:
    """Specification of an environment.

    Attributes:
      spec: as the protocol has it.
      has_mask: whether masks of legal actions come beside the observations.
      num_logits: P where all actions are choices: the width of a mask.
    """

    def __init__(
        self,
        leaves: list[Leaf],
        parts: list[tuple[Part, spec_pb2.ActionPart]],
        frame_stack: int,
        has_mask: bool = False,
    ) -> None:
        """Collects what `simple` and `from_spaces` have found."""
        kinds = {part.kind for _, part in parts}
        num_logits = sum(sum(part.sizes) for _, part in parts)
        can_be_masked = kinds == {spec_pb2.ACTION_KIND_CATEGORICAL}
        if has_mask and not can_be_masked:
            raise RefusedError("has_mask: only actions that are choices can be masked")
        if has_mask and frame_stack > 1:
            raise RefusedError("has_mask: expected no frame_stack with it")
        leaves = [*leaves, _make_mask_leaf(num_logits)] if has_mask else leaves
        self.has_mask = has_mask
        self.num_logits = num_logits
        self._leaves = sorted(leaves, key=lambda leaf: leaf.spec.name)
        self._parts = [part for part, _ in parts]
        specs = [leaf.spec for leaf in self._leaves]
        for spec in specs:  # as ordinary actors give the role
            is_mask = spec.name == _MASK and can_be_masked and len(specs) > 1
            if is_mask and math.prod(spec.shape) == num_logits:
                spec.role = tensor_pb2.TENSOR_ROLE_ACTION_MASK
        if frame_stack > 1:
            if len(specs) > 1:
                names = ", ".join(spec.name for spec in specs)
                raise RefusedError(f"frame_stack: expected an observation of one part, got {names}")
            (spec,) = specs
            shape = (frame_stack, *spec.shape)
            is_image = len(shape) == 3
            role = _CHW if is_image else tensor_pb2.TENSOR_ROLE_UNSPECIFIED
            specs = [
                tensor_pb2.TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape, role=role)
            ]
        self.spec = spec_pb2.EnvironmentSpec(
            observation_leaves=specs,
            frame_stack=frame_stack if frame_stack > 1 else 0,
            action=spec_pb2.ActionSpec(parts=[spec for _, spec in parts]),
            one_hot_leaves=[leaf.one_hot for leaf in self._leaves if leaf.one_hot is not None],
        )

    @classmethod
    def simple(
        cls,
        shape: tuple[int, ...],
        num_actions: int,
        dtype: str = "float32",
        frame_stack: int = 0,
        has_mask: bool = False,
    ) -> Environment:
        """Returns an environment whose observation is one array and whose action is one choice.

        Args:
          shape: of the observation.
          num_actions: the action is 0 .. num_actions-1.
          dtype: element type of the observation.
          frame_stack: observations that the server stacks; 0: none.
          has_mask: whether a mask of legal actions comes with each observation.
        """
        leaf = Leaf(_tensor("observation", shape, dtype), (), np.dtype(dtype))
        action = _choice("action", (), (), "int64", [num_actions], [0])
        return cls([leaf], [action], frame_stack, has_mask)

    @classmethod
    def from_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        frame_stack: int = 0,
        has_mask: bool = False,
        image_layout: str | None = None,
    ) -> Environment:
        """Returns the environment with these Gymnasium spaces, those of one slot.

        Args:
          observation_space: Box, Discrete, MultiDiscrete or MultiBinary, or Dict or Tuple of these,
            in which text is left out.
          action_space: the same, without text.
          frame_stack: observations that the server stacks; 0: none.
          has_mask: whether a mask of legal actions comes with each observation, beside it (as in
            `info["action_mask"]`). A part "action_mask" of a Dict is one anyhow.
          image_layout: metadata["image_layout"] of the environment, "HWC" or "CHW": where images
            of rank 3 have their channels; None: the shape decides, as for ordinary actors.

        Raises:
          RefusedError: a space or layout of another kind.
        """
        if image_layout not in (None, "HWC", "CHW"):
            raise RefusedError(f'image_layout: expected "HWC" or "CHW", got {image_layout!r}')
        leaves = [
            _make_leaf(space, path, name, image_layout)
            for name, path, space in walk_observation(observation_space)
        ]
        parts = [_make_part(space, path, name) for name, path, space in walk_action(action_space)]
        return cls(leaves, parts, frame_stack, has_mask)

    def encode(self, observation: Any, num_slots: int, masks: Any = None) -> list[bytes]:
        """Returns the bytes of each leaf of a batch.

        Args:
          observation: arrays [n, ...], nested as the space is.
          num_slots: n.
          masks: bool [n, P], where `has_mask`; None: everything is legal.

        Raises:
          ValueError: a value outside its space, or masks of another shape.
        """
        return [
            self._encode_masks(masks, num_slots)
            if self.has_mask and leaf.spec.name == _MASK
            else leaf.encode(observation, num_slots)
            for leaf in self._leaves
        ]

    def _encode_masks(self, masks: Any, num_slots: int) -> bytes:
        shape = (num_slots, self.num_logits)
        if masks is None:
            return b"\1" * (num_slots * self.num_logits)
        values = np.asarray(masks)
        require_flags("masks", values)
        array = values != 0
        if array.shape != shape:
            raise ValueError(f"masks: expected shape {shape}, got {array.shape}")
        data: bytes = array.tobytes()
        return data

    def decode(self, parts: Any, num_slots: int) -> Any:  # Any: as the space is nested
        """Returns a batch of actions: an array [n, ...], or dicts and tuples of them."""
        arrays = [
            # A copy: environments may write into their actions.
            np.frombuffer(data, part.dtype).reshape(num_slots, *part.shape).copy()
            for part, data in zip(self._parts, parts, strict=True)
        ]
        if len(arrays) == 1 and not self._parts[0].path:
            return arrays[0]
        nested: Any = {}
        for part, array in zip(self._parts, arrays, strict=True):
            level = nested
            for key in part.path[:-1]:
                level = level.setdefault(key, {})
            level[part.path[-1]] = array
        return with_tuples(nested)


def _tensor(
    name: str, shape: tuple[int, ...], dtype: str, image_layout: str | None = None
) -> tensor_pb2.TensorSpec:
    role = tensor_pb2.TENSOR_ROLE_UNSPECIFIED
    if len(shape) == 3 and name.startswith("observation"):
        is_chw = image_layout == "CHW"
        if image_layout is None:  # as for ordinary actors: docs/adr/0033
            is_chw = 2 * shape[0] <= min(shape[1:])
        role = _CHW if is_chw else tensor_pb2.TENSOR_ROLE_IMAGE_HWC
    return tensor_pb2.TensorSpec(name=name, dtype=f"DTYPE_{dtype.upper()}", shape=shape, role=role)


def require_flags(name: str, values: Array) -> None:
    """Raises ValueError for a mask of 0 and -inf, or of other numbers than 0 and 1."""
    if values.dtype != np.bool_ and not ((values == 0) | (values == 1)).all():
        found = f"{values.tolist()}"[:200]
        raise ValueError(f"{name}: expected each 0 (illegal) or 1 (legal), got {found}")


def _make_mask_leaf(num_logits: int) -> Leaf:
    return Leaf(_tensor(_MASK, (num_logits,), "bool"), (), np.dtype(np.bool_))


def _make_leaf(space: Any, path: Path, name: str, image_layout: str | None) -> Leaf:
    kind = type(space).__name__
    if kind in ("Box", "MultiBinary"):
        dtype = np.dtype(space.dtype)
        return Leaf(_tensor(name, tuple(space.shape), dtype.name, image_layout), path, dtype)
    if kind in ("Discrete", "MultiDiscrete"):
        sizes = np.ravel(space.n if kind == "Discrete" else space.nvec).astype(np.int64)
        starts = np.ravel(space.start).astype(np.int64)
        spec = _tensor(name, (int(sizes.sum()),), "float32")
        one_hot = spec_pb2.OneHotLeaf(
            name=name, shape=tuple(space.shape), starts=starts.tolist(), sizes=sizes.tolist()
        )
        return Leaf(spec, path, np.dtype(np.float32), starts, sizes, one_hot)
    raise RefusedError(f"{name}: observation space {space} is not supported")


def _make_part(space: Any, path: Path, name: str) -> tuple[Part, spec_pb2.ActionPart]:
    kind = type(space).__name__
    if kind not in ("Discrete", "MultiDiscrete", "MultiBinary", "Box"):
        raise RefusedError(f"{name}: action space {space} is not supported")
    dtype = np.dtype(space.dtype).name
    if kind in ("Discrete", "MultiDiscrete"):
        sizes = np.ravel(space.n if kind == "Discrete" else space.nvec).tolist()
        starts = np.ravel(space.start).tolist()
        return _choice(name, path, tuple(space.shape), dtype, sizes, starts)
    part = Part(path, np.dtype(dtype), tuple(space.shape))
    tensor = _tensor(name, part.shape, dtype)
    if kind == "MultiBinary":
        return part, spec_pb2.ActionPart(tensor=tensor, kind=spec_pb2.ACTION_KIND_BERNOULLI)
    lows, highs = np.ravel(space.low).tolist(), np.ravel(space.high).tolist()
    if part.dtype.kind != "f":  # a choice of its values
        sizes = [high - low + 1 for low, high in zip(lows, highs, strict=True)]
        if max(sizes) > _MAX_INTEGER_CHOICES or min(sizes) < 1:
            raise RefusedError(
                f"{name}: a component of {space} has {max(sizes)} values: expected 1 to "
                f"{_MAX_INTEGER_CHOICES}, or a float Box"
            )
        return _choice(name, path, part.shape, dtype, sizes, lows)
    return part, spec_pb2.ActionPart(
        tensor=tensor, kind=spec_pb2.ACTION_KIND_GAUSSIAN, lows=lows, highs=highs
    )


def _choice(
    name: str, path: Path, shape: tuple[int, ...], dtype: str, sizes: list[int], starts: list[int]
) -> tuple[Part, spec_pb2.ActionPart]:
    assert len(sizes) == math.prod(shape)
    spec = spec_pb2.ActionPart(
        tensor=_tensor(name, shape, dtype),
        kind=spec_pb2.ACTION_KIND_CATEGORICAL,
        sizes=sizes,
        starts=starts,
    )
    return Part(path, np.dtype(dtype), shape), spec
