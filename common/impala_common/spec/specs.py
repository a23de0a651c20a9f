"""EnvironmentSpec, ModelSpec, UnrollSpec: shapes and dtypes of the data.

Immutable values shared by all sides; no grpc, no torch. Only `UnrollSpec` decides the leaves of an
unroll (row t is a decision, nothing is shifted). `impala_common.codec.specs` packs specifications
for the wire; `to_json`/`from_json` here are for files in a run's folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from impala_common.errors import SpecMismatchError
from impala_common.spec.action_spec import ACTION as ACTION
from impala_common.spec.action_spec import ActionKind as ActionKind
from impala_common.spec.action_spec import ActionPart as ActionPart
from impala_common.spec.action_spec import ActionSpec as ActionSpec
from impala_common.spec.action_spec import find_difference
from impala_common.spec.one_hot import OneHotLeaf as OneHotLeaf
from impala_common.spec.tensor_spec import DTYPES as DTYPES
from impala_common.spec.tensor_spec import TensorRole as TensorRole
from impala_common.spec.tensor_spec import TensorSpec as TensorSpec

OBSERVATION = "observation"
"""Name of the leaf of a plain observation; parts of a nested one are "observation/..."."""

MAX_OBSERVATION_LEAVES = 256
MAX_RANK = 6
"""Most dimensions of one observation; with time and batch they are 8 on the wire."""
MAX_ELEMENTS = 1 << 28


@dataclasses.dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """Observations and actions of an environment.

    Attributes:
      observation_leaves: leaves of the observation in sorted order of name.
      action: specification of an action.
      frame_stack: frames stacked along dimension 0 of the only observation leaf; 0 without frame
        stacking.
      one_hot_leaves: the integers of leaves that are one-hot vectors, where they are known; not
        compared.
    """

    observation_leaves: tuple[TensorSpec, ...]
    action: ActionSpec
    frame_stack: int = 0
    one_hot_leaves: tuple[OneHotLeaf, ...] = ()

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns a JSON-serialisable form."""
        return {
            "observation_leaves": [dataclasses.asdict(leaf) for leaf in self.observation_leaves],
            "action": self.action.to_json(),
            "frame_stack": self.frame_stack,
            "one_hot_leaves": [dataclasses.asdict(leaf) for leaf in self.one_hot_leaves],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EnvironmentSpec:
        """Rebuilds what `to_json` returned."""
        leaves = tuple(map(TensorSpec.from_json, data["observation_leaves"]))
        return cls(
            observation_leaves=leaves,
            action=ActionSpec.from_json(data["action"]),
            frame_stack=int(data["frame_stack"]),
            one_hot_leaves=tuple(map(OneHotLeaf.from_json, data.get("one_hot_leaves", ()))),
        )

    @property
    def action_mask(self) -> TensorSpec | None:
        """The observation leaf that marks legal actions, or None."""
        masks = (leaf for leaf in self.observation_leaves if leaf.role == "action_mask")
        return next(masks, None)

    def without_action_mask(self) -> EnvironmentSpec:
        """Returns this environment as a network's layers see it: without the mask."""
        leaves = (leaf for leaf in self.observation_leaves if leaf.role != "action_mask")
        return dataclasses.replace(self, observation_leaves=tuple(leaves))

    def with_roles_of(self, leaves: Sequence[TensorSpec]) -> EnvironmentSpec:
        """Returns this environment with the roles of a run's leaves of the same names.

        Every side builds the network with the roles that the run began with: declared ones, or
        none in an older run.
        """
        roles = {leaf.name: leaf.role for leaf in leaves}
        own = tuple(
            dataclasses.replace(leaf, role=roles.get(leaf.name, ""))
            for leaf in self.observation_leaves
        )
        return dataclasses.replace(self, observation_leaves=own)


def validate_same_environment(expected: EnvironmentSpec, actual: EnvironmentSpec) -> None:
    """Raises SpecMismatchError naming the first field in which the two differ.

    Roles of observation leaves may be undeclared on one side; declared ones must agree.
    """
    names_expected = [leaf.name for leaf in expected.observation_leaves]
    names_actual = [leaf.name for leaf in actual.observation_leaves]
    if names_expected != names_actual:
        raise SpecMismatchError("observation leaves", names_expected, names_actual)
    for want, got in zip(expected.observation_leaves, actual.observation_leaves, strict=True):
        if want.shape != got.shape:
            raise SpecMismatchError(f"{want.name}.shape", want.shape, got.shape)
        if want.dtype != got.dtype:
            raise SpecMismatchError(f"{want.name}.dtype", want.dtype, got.dtype)
        if want.role and got.role and want.role != got.role:
            raise SpecMismatchError(f"{want.name}.role", want.role, got.role)
    difference = find_difference(expected.action, actual.action)
    if difference is not None:
        raise SpecMismatchError(*difference)
    if expected.frame_stack != actual.frame_stack:
        raise SpecMismatchError("frame_stack", expected.frame_stack, actual.frame_stack)


def validate_same_model(expected: str, actual: str) -> None:
    """Raises SpecMismatchError unless an actor has the same own network as the run.

    Args:
      expected: name of the network that the run trains.
      actual: own network that the actor was started with, "" for none.
    """
    needed = expected if ":" in expected else ""
    if actual == needed:
        return
    started = f"started with --model {actual}" if actual else "started with no --model"
    advice = f"add --model {needed}" if needed else f"start it without --model {actual}"
    if actual and needed:
        advice = f"start it with --model {needed}"
    raise SpecMismatchError("model", f"{expected}, which the run trains", f"{started}: {advice}")


def validate_same_weights(
    model: str, expected: tuple[TensorSpec, ...], actual: tuple[TensorSpec, ...]
) -> None:
    """Raises SpecMismatchError, with the first tensor of the weights that differs.

    Args:
      model: name of the network.
      expected: the learner's tensors, in their order.
      actual: this side's.
    """
    if expected == actual:
        return
    by_name = {spec.name: spec for spec in actual}
    for want in expected:
        got = by_name.pop(want.name, None)
        if got != want:
            found = f"{got.dtype} {list(got.shape)}" if got else "no such tensor"
            raise SpecMismatchError(
                f"weights of {model}, {want.name}",
                f"{want.dtype} {list(want.shape)} as the learner has",
                f"{found}: both sides must have the same code of the network",
            )
    extra = next(iter(by_name.values()), None)
    raise SpecMismatchError(
        f"weights of {model}" + (f", {extra.name}" if extra else ""),
        "no such tensor, as in the learner" if extra else "the learner's order of tensors",
        (f"{extra.dtype} {list(extra.shape)}" if extra else "another order")
        + ": both sides must have the same code of the network",
    )


Rows = Literal["T", "T+1", "none"]


@dataclasses.dataclass(frozen=True, slots=True)
class UnrollLeaf:
    """One leaf of an unroll: a tensor and its number of rows."""

    tensor: TensorSpec
    rows: Rows

    def num_rows(self, unroll_length: int) -> int:
        """Returns the length of dimension 0, or 0 for a leaf without time."""
        return {"T": unroll_length, "T+1": unroll_length + 1, "none": 0}[self.rows]

    def shape(self, unroll_length: int, num_unrolls: int) -> tuple[int, ...]:
        """Returns `[T, N, ...]`, `[T+1, N, ...]` or `[N, ...]`."""
        if self.rows == "none":
            return (num_unrolls, *self.tensor.shape)
        return (self.num_rows(unroll_length), num_unrolls, *self.tensor.shape)


@dataclasses.dataclass(frozen=True, slots=True)
class UnrollSpec:
    """Specification of an unroll: T and the leaves, in their fixed order.

    Leaves (glossary words; `x` stands for each observation leaf):
      observation... `[T+1, ...]`, is_first `[T+1]` bool, actions `[T, ...]` as
      ActionSpec.tensor says, behaviour_policy_logits `[T, P]` float32, rewards `[T]`
      float32, terminated, truncated, is_padding `[T]` bool, previous_action `[...]`
      and previous_reward `[]` float32 (what led to observation 0; 0 after a reset),
      initial_agent_state/k `[L, H]` float32 for each recurrent tensor.
    """

    unroll_length: int
    environment: EnvironmentSpec
    agent_state: tuple[TensorSpec, ...] = ()

    @property
    def leaves(self) -> tuple[UnrollLeaf, ...]:
        """All leaves in wire order."""
        leaves = [UnrollLeaf(leaf, "T+1") for leaf in self.environment.observation_leaves]
        action = self.environment.action
        actions = action.tensor
        previous_action = dataclasses.replace(actions, name="previous_action")
        leaves += [
            UnrollLeaf(TensorSpec("is_first", (), "bool"), "T+1"),
            UnrollLeaf(actions, "T"),
            UnrollLeaf(TensorSpec("behaviour_policy_logits", (action.num_logits,), "float32"), "T"),
            UnrollLeaf(TensorSpec("rewards", (), "float32"), "T"),
            UnrollLeaf(TensorSpec("terminated", (), "bool"), "T"),
            UnrollLeaf(TensorSpec("truncated", (), "bool"), "T"),
            UnrollLeaf(TensorSpec("is_padding", (), "bool"), "T"),
            UnrollLeaf(previous_action, "none"),
            UnrollLeaf(TensorSpec("previous_reward", (), "float32"), "none"),
        ]
        leaves += [UnrollLeaf(state, "none") for state in self.agent_state]
        return tuple(leaves)

    @property
    def uses_unique_frames(self) -> bool:
        """Whether the observation leaf travels and is stored as unique frames plus index."""
        return self.environment.frame_stack > 1

    @property
    def frame_leaf(self) -> TensorSpec:
        """The observation leaf that is a stack of frames."""
        return self.environment.observation_leaves[0]

    @property
    def max_frames(self) -> int:
        """Distinct frames one unroll can have at most: (T+1) x stack."""
        return (self.unroll_length + 1) * self.environment.frame_stack

    @property
    def num_bytes(self) -> int:
        """Bytes of one unroll, uncompressed and with frames stacked."""
        return sum(
            leaf.tensor.num_bytes * max(leaf.num_rows(self.unroll_length), 1)
            for leaf in self.leaves
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSpec:
    """Specification of the network; ModelConfig explains the fields.

    `normalise_rewards` is LossConfig.reward_normalisation: its statistics are the network's.
    `normalise_integers` is normalise_observations for leaves of integer type, except pictures of
    uint8; it is False in runs of earlier versions.

    Attributes:
      name: a shipped network, or an own one: "module:Class" or "object:Name".
    """

    name: str
    hidden_sizes: tuple[int, ...]
    feature_dim: int
    hidden_dim: int
    recurrence: str
    init_method: str
    activation: str
    use_previous_action_and_reward: bool
    observation_scale: float
    normalise_observations: bool = False
    observation_clip: float = 10.0
    normalise_rewards: bool = False
    log_std_init: float = 0.0
    normalise_integers: bool = False

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelSpec:  # Any: JSON
        """Rebuilds a specification from the JSON form of its fields."""
        return cls(**(data | {"hidden_sizes": tuple(data["hidden_sizes"])}))

    @property
    def is_own(self) -> bool:
        """Whether the network is user-supplied."""
        return ":" in self.name

    @property
    def is_fed_back(self) -> bool:
        """Whether the network gets the previous action and reward (an own network always does)."""
        return self.use_previous_action_and_reward or self.is_own
