"""ActionSpec: the parts of an action and their layout in flat arrays.

An action is a list of parts, one for each leaf of the environment's action space; a part
is an array of components. Inside the system an action is one flat tensor of all
components in order, and a policy one flat row of P logits:

  kind         component is          its logits                     as network input
  categorical  0 .. size-1           `size` unnormalised logits     one-hot
  bernoulli    0 or 1                1 logit of the value 1         as it is
  gaussian     a real number u       mean; log_std                  clamped u

The logits of a part lie side by side; a gaussian part has all its means first, then all
its log_stds. A gaussian u is normalised and unclipped: the environment's action is computed from it
and the bounds (docs/adr/0013). Immutable; no grpc, no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import numpy as np

from impala_common.spec.tensor_spec import TensorSpec

ACTION = "action"
"""Name of the part of a plain action space, and root of the names of all others."""

ActionKind = Literal["categorical", "bernoulli", "gaussian"]
MAX_POLICY_LOGITS = 1 << 16
"""Largest P."""
MASKED_LOGIT = -1e9
"""Logit of an illegal choice: finite, and so low that its probability is exactly 0 in float32."""
MAX_ABS_GAUSSIAN = 1e6
"""Largest |u| of a gaussian action that a learner accepts."""


@dataclasses.dataclass(frozen=True, slots=True)
class ActionPart:
    """One leaf of the action space.

    Attributes:
      name: "action", or the path of the leaf: "action/arm/mode", "action/0"; keys are escaped
        (`impala_common.spec.action_decoding.escape_key`).
      kind: the distribution of its components.
      shape: shape of the environment's array.
      dtype: element type of that array.
      sizes: number of choices of each component (categorical only, else empty).
      starts: smallest value of each component for the environment (categorical only).
      lows: lower bound of each component, -inf for none (gaussian only).
      highs: upper bound of each component, inf for none (gaussian only).
    """

    name: str
    kind: ActionKind
    shape: tuple[int, ...] = ()
    dtype: str = "int64"
    sizes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()

    @property
    def num_components(self) -> int:
        """Numbers in the flat action."""
        return math.prod(self.shape)

    @property
    def num_logits(self) -> int:
        """Numbers in the policy's row of logits."""
        if self.kind == "categorical":
            return sum(self.sizes)
        return self.num_components * (2 if self.kind == "gaussian" else 1)

    @property
    def num_inputs(self) -> int:
        """Width of the previous action as an input of a network."""
        return sum(self.sizes) if self.kind == "categorical" else self.num_components

    @property
    def is_bounded(self) -> bool:
        """Whether every component has two bounds."""
        return all(map(math.isfinite, (*self.lows, *self.highs)))

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns a JSON-serialisable form; None is no bound, as JSON has no infinity."""
        data = dataclasses.asdict(self)
        for name in ("lows", "highs"):
            data[name] = [bound if math.isfinite(bound) else None for bound in data[name]]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ActionPart:
        """Rebuilds what `to_json` returned."""
        return cls(
            name=data["name"],
            kind=data["kind"],
            shape=tuple(data["shape"]),
            dtype=data["dtype"],
            sizes=tuple(data["sizes"]),
            starts=tuple(data["starts"]),
            lows=tuple(-math.inf if low is None else float(low) for low in data["lows"]),
            highs=tuple(math.inf if high is None else float(high) for high in data["highs"]),
        )


class ActionGroup(NamedTuple):
    """Neighbouring components that are computed together.

    Attributes:
      kind: their distribution.
      size: choices of each component (categorical), else 1.
      num_components: number of components.
      actions: their slice of the flat action.
      logits: the slice of their logits; gaussian: means, then log_stds.
      inputs: their slice of the encoded previous action.
      input_limit: gaussian previous actions are clamped to this absolute value.
    """

    kind: ActionKind
    size: int
    num_components: int
    actions: slice
    logits: slice
    inputs: slice
    input_limit: float


@dataclasses.dataclass(frozen=True, slots=True)
class ActionSpec:
    """All parts of an action, in their fixed order."""

    parts: tuple[ActionPart, ...]

    @classmethod
    def discrete(cls, num_actions: int, start: int = 0) -> ActionSpec:
        """Returns the spec of a plain Discrete action space."""
        part = ActionPart(ACTION, "categorical", sizes=(num_actions,), starts=(start,))
        return cls((part,))

    @property
    def num_components(self) -> int:
        """D: numbers in the flat action."""
        return sum(part.num_components for part in self.parts)

    @property
    def num_logits(self) -> int:
        """P: width of policy_logits."""
        return sum(part.num_logits for part in self.parts)

    @property
    def num_inputs(self) -> int:
        """Width of the encoded previous action."""
        return sum(part.num_inputs for part in self.parts)

    @property
    def is_single_categorical(self) -> bool:
        """Whether an action is one choice: a scalar int64 inside the system."""
        return (
            len(self.parts) == 1
            and self.parts[0].kind == "categorical"
            and self.parts[0].shape == ()
        )

    @property
    def has_gaussian(self) -> bool:
        """Whether any component is continuous."""
        return any(part.kind == "gaussian" for part in self.parts)

    @property
    def tensor(self) -> TensorSpec:
        """The flat action of one decision: int64 [] or [D], float32 [D] if any is continuous."""
        if self.is_single_categorical:
            return TensorSpec("actions", (), "int64")
        dtype = "float32" if self.has_gaussian else "int64"
        return TensorSpec("actions", (self.num_components,), dtype)

    @property
    def groups(self) -> tuple[ActionGroup, ...]:
        """The components in order, in groups of equal distribution."""
        return _make_groups(self)

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns a JSON-serialisable form."""
        return {"parts": [part.to_json() for part in self.parts]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ActionSpec:
        """Rebuilds what `to_json` returned."""
        return cls(tuple(ActionPart.from_json(part) for part in data["parts"]))


_UNBOUNDED_INPUT_LIMIT = 10.0


@functools.lru_cache(maxsize=256)
def _make_groups(spec: ActionSpec) -> tuple[ActionGroup, ...]:
    # Equal neighbours are merged, except gaussian ones: their logits are grouped by part.
    runs: list[tuple[tuple[ActionKind, int, float, int], int]] = []
    for index, part in enumerate(spec.parts):
        if part.kind == "gaussian":
            limit = 1.0 if part.is_bounded else _UNBOUNDED_INPUT_LIMIT
            runs.append((("gaussian", 1, limit, index), part.num_components))
        elif part.kind == "bernoulli":
            runs.append((("bernoulli", 1, 1.0, -1), part.num_components))
        else:
            runs += [(("categorical", size, 1.0, -1), 1) for size in part.sizes]
    groups: list[ActionGroup] = []
    action = logit = position = 0
    for key, members in itertools.groupby(runs, key=lambda run: run[0]):
        kind, size, limit, _part = key
        num = sum(count for _key, count in members)
        num_logits = num * (2 if kind == "gaussian" else size)
        groups.append(
            ActionGroup(
                kind=kind,
                size=size,
                num_components=num,
                actions=slice(action, action + num),
                logits=slice(logit, logit + num_logits),
                inputs=slice(position, position + num * size),
                input_limit=limit,
            )
        )
        action, logit, position = action + num, logit + num_logits, position + num * size
    return tuple(groups)


def find_difference(expected: ActionSpec, actual: ActionSpec) -> tuple[str, Any, Any] | None:
    """Returns name, expected and actual value of the first field that differs, or None."""
    # Runs that began before keys were escaped, and clients of that time, have plain names.
    names_expected = [unquote(part.name) for part in expected.parts]
    names_actual = [unquote(part.name) for part in actual.parts]
    if names_expected != names_actual:
        return "action parts", names_expected, names_actual
    for want, got in zip(expected.parts, actual.parts, strict=True):
        for field in dataclasses.fields(ActionPart)[1:]:  # without the name
            if getattr(want, field.name) != getattr(got, field.name):
                return f"{want.name}.{field.name}", *(
                    getattr(part, field.name) for part in (want, got)
                )
    return None


def hide_masked(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns logits with 0 in place of masked ones, so that the others can be compared."""
    return np.where(logits <= MASKED_LOGIT, 0, logits)
