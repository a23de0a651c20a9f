"""EnvironmentAdapter: the interface between the actor and every environment backend.

Wraps a Gymnasium vector environment with NEXT_STEP autoreset: the step after an
end ignores its action and returns the reset observation. Those rows are marked
as padding here, so that nothing after this file has to know how an environment
resets. Vector environments with the other two autoreset modes:
`impala_actor.environments.immediate_reset`. Owned by the one thread that steps it;
numpy only, never torch or gymnasium.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.action_masks import (
    KEY,
    InfoMasks,
    can_be_masked,
    require_flags,
)
from impala_actor.environments.outcomes import as_flags, as_rewards
from impala_actor.environments.step_infos import find_final, join_infos, select_final
from impala_common.errors import FOREIGN_ERRORS, SpecMismatchError
from impala_common.spec.specs import EnvironmentSpec

_LOG = logging.getLogger(__name__)

BoolArray = NDArray[np.bool_]
Observations = dict[str, NDArray[Any]]  # Any: each leaf has the dtype its spec names
DecodeActions = Callable[[NDArray[Any]], Any]  # Any: arrays, or dicts and tuples of them
"""Turns flat actions [N, ...] into the argument of the vector environment's step."""
Explain = Callable[[BaseException], BaseException]
"""Returns a more specific error for an exception of the vector environment, or the exception."""


class VectorEnvironment(Protocol):
    """The part of Gymnasium's VectorEnv that the adapter uses."""

    num_envs: int

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Starts all slots, or those of options["reset_mask"]."""

    def step(self, actions: Any, /) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all slots."""

    def render(self) -> Any:
        """Returns one picture per slot, if it was made with render_mode rgb_array."""

    def close(self) -> None:
        """Frees the resources of the environment."""


class Encode(Protocol):
    """Turns raw observations of any structure into observation leaves.

    Both raise SpecMismatchError, with the name of the leaf, if an observation breaks its space.
    """

    def __call__(self, observation: Any, /) -> Observations:
        """Returns leaf name -> [N, ...] for those of all slots."""

    def encode_one(self, observation: Any, /) -> Observations:
        """Returns leaf name -> [...] for that of one slot."""


class StepResult(NamedTuple):
    """Result of one step of all slots. N is the number of slots.

    The arrays may be buffers that the environment uses again: they are valid
    until the next call of `step` or `reset`, and must not be written to.

    Attributes:
      observations: leaf name -> [N, ...]: observations after the step. For an
        episode that ended in this step this is its final observation, unless
        `final_observations` holds that.
      rewards: float32 [N]: raw rewards of the step; 0 on padding rows.
      terminated: bool [N]: the episode ended for good; False on padding rows.
      truncated: bool [N]: the episode was cut; False on padding rows.
      is_padding: bool [N]: the action was ignored; no loss, statistic or step count uses the row.
      is_first: bool [N]: `observations` opens an episode, so recurrent state is
        reset before it is consumed. Always use this, not is_padding: they differ
        where a lost life ends an episode, and where slots are reset at once (the
        next observation opens an episode without any padding row).
      final_observations: leaf name -> [N, ...], where slots were reset in the step
        that ended their episode: rows of slots that ended hold their final
        observations, other rows nothing of meaning. None: no slot was.
    """

    observations: Observations
    rewards: NDArray[np.float32]
    terminated: BoolArray
    truncated: BoolArray
    is_padding: BoolArray
    is_first: BoolArray
    final_observations: Observations | None = None

    @property
    def has_reset(self) -> BoolArray:
        """Bool [N]: a reset observation has arrived: the episode before it is over and counted."""
        has_reset = self.is_padding & self.is_first
        if self.final_observations is not None:
            has_reset |= self.terminated | self.truncated
        return has_reset


def derive_slot_seeds(seed: int, num_slots: int) -> list[int]:
    """Returns one seed per slot in 1 .. 2^31-1, a function of (seed, slot) only.

    Zero is left out because ale-py takes it as "keep the old seed".
    """
    highest = 2**31 - 1
    return [
        int(np.random.SeedSequence((seed, slot)).generate_state(1)[0]) % highest + 1
        for slot in range(num_slots)
    ]


class EnvironmentAdapter:
    """N environment slots that autoreset in the step after an end.

    Args:
      vector_env: a vector environment with NEXT_STEP autoreset; the adapter closes it.
      spec: specification of its observations and actions.
      has_slot_seeds: whether its reset takes a list of seeds, one per slot; else
        it takes one number.
      encode: turns raw observations into the observation leaves; None: they are the only one.
      decode_actions: turns flat actions into the environment's; None: they are them.
      explain: called with what the vector environment raises; None: that is raised as it is.
      masks: reads masks of legal actions off infos; None: infos hold none.

    Attributes:
      resets_at_once: whether results may have `final_observations`.
    """

    resets_at_once = False

    def __init__(
        self,
        vector_env: VectorEnvironment,
        spec: EnvironmentSpec,
        *,
        has_slot_seeds: bool = True,
        encode: Encode | None = None,
        decode_actions: DecodeActions | None = None,
        explain: Explain | None = None,
        masks: InfoMasks | None = None,
    ) -> None:
        self.spec = spec
        self.num_slots = vector_env.num_envs
        self._vector_env = vector_env
        self._has_slot_seeds = has_slot_seeds
        self._encode = encode
        self._explain = explain
        self._masks = masks
        self._leaf = spec.observation_leaves[0]
        self._leaf_shape = (self.num_slots, *self._leaf.shape)
        self._leaf_dtype = np.dtype(self._leaf.dtype)
        self._decode_actions = decode_actions
        mask = next((leaf for leaf in spec.observation_leaves if leaf.role == "action_mask"), None)
        self._can_be_masked = can_be_masked(spec.action) and mask is None
        self._observed_mask = "" if mask is None or masks is not None else mask.name
        self._ended = np.zeros(self.num_slots, np.bool_)
        self._has_ended = False
        self._has_warned = False

    def reset(self, seed: int) -> Observations:
        """Starts a new episode in every slot; each slot's seed derives from (seed, slot).

        A vector environment with a single generator for all slots gets one seed.

        Returns:
          leaf name -> [N, ...]: the first observations.
        """
        seeds = derive_slot_seeds(seed, self.num_slots)
        try:
            observation, infos = self._vector_env.reset(
                seed=self._pack_seeds(seeds) if self._has_slot_seeds else seeds[0]
            )
        except FOREIGN_ERRORS as error:
            self._raise_explained(error)
        self._forget_ends()
        if self._masks is not None:
            self._masks.read(join_infos(infos, self.num_slots))
        return self._make_leaves(observation)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Takes one step in every slot.

        Args:
          actions: [N, ...]: flat actions as `spec.action.tensor` says; ignored in slots
            whose episode ended in the step before.
        """
        observation, rewards, terminated, truncated, infos = self._step_all(actions)
        is_padding = self._ended
        if self._has_ended:
            self._look_at_resets(is_padding, rewards, terminated | truncated)
            rewards = np.where(is_padding, np.float32(0.0), rewards)
            terminated = terminated & ~is_padding
            truncated = truncated & ~is_padding
        leaves = self._make_leaves(observation)
        self._note_ends(terminated | truncated)
        if self._has_ended and infos:
            self._require_next_step(leaves, infos)
        return StepResult(leaves, rewards, terminated, truncated, is_padding, is_padding)

    def render(self) -> Any:  # Any: what the environment draws; see RenderedEnvironment
        """Returns the vector environment's picture of each slot, or None."""
        return self._vector_env.render()

    @property
    def frames_per_s(self) -> float | None:
        """Frames per second of its pictures, or None if it declares none."""
        return getattr(self._vector_env, "metadata", {}).get("render_fps")

    def close(self) -> None:
        """Frees what the environment holds; what that raises is logged: all is done by then."""
        try:
            self._vector_env.close()
        except FOREIGN_ERRORS as error:
            _LOG.warning("close() of the environment raised %s: %s", type(error).__name__, error)

    def _pack_seeds(self, seeds: list[int]) -> Any:  # Any: what the environment's reset takes
        """Returns the per-slot seeds in the form the vector environment takes."""
        return seeds

    def _step_all(
        self, actions: NDArray[Any]
    ) -> tuple[Any, NDArray[np.float32], BoolArray, BoolArray, dict[str, Any]]:
        """Steps the vector environment; returns what it does, rewards and flags checked."""
        # A copy: the environment may write into it, and the policy still needs its own.
        actions = actions.copy() if self._decode_actions is None else self._decode_actions(actions)
        try:
            observation, rewards, terminated, truncated, infos = self._vector_env.step(actions)
        except FOREIGN_ERRORS as error:
            self._raise_explained(error)
        num_slots = self.num_slots
        infos = join_infos(infos, num_slots)
        if self._masks is not None:
            self._masks.read(infos)
        elif self._can_be_masked and infos.get(KEY) is not None:
            raise SpecMismatchError(
                "action_mask in the infos of the environment",
                "in the infos of each reset as well, or never",
                "in those of a step only",
            )
        return (
            observation,
            as_rewards(rewards, num_slots),
            as_flags("terminated", terminated, num_slots),
            as_flags("truncated", truncated, num_slots),
            infos,
        )

    def _require_next_step(self, leaves: Observations, infos: dict[str, Any]) -> None:
        """Raises SpecMismatchError where infos show that the slots were reset at once."""
        final = find_final(infos)
        if final is None:
            return
        for slot in np.flatnonzero(self._ended):
            observation = select_final(final, int(slot))
            if observation is None:
                continue
            for name, leaf in self._make_leaves_of_one(observation).items():
                if not np.array_equal(leaf, leaves[name][slot]):
                    raise SpecMismatchError(
                        'metadata["autoreset_mode"] of the environment',
                        "SAME_STEP, since the final observation in its infos is not the "
                        "observation of the step that ends",
                        "NEXT_STEP",
                    )

    def _look_at_resets(
        self, is_padding: BoolArray, rewards: NDArray[np.float32], ended: BoolArray
    ) -> None:
        """Notices steps of an episode where slots are to be reset and nothing else.

        A reward may also come from a wrapper around all slots, hence a warning only.

        Raises:
          SpecMismatchError: an episode ended there.
        """
        if (ended & is_padding).any():
            slot = int(np.flatnonzero(ended & is_padding)[0])
            raise SpecMismatchError(
                'metadata["autoreset_mode"] of the environment',
                "SAME_STEP with final_obs in its infos, or DISABLED, since an episode ended in "
                f"slot {slot} in the step after an end",
                "NEXT_STEP, which only resets in that step",
            )
        if self._has_warned or not rewards[is_padding].any():
            return
        self._has_warned = True
        _LOG.warning(
            "the vector environment gave a reward of %g in the step after an end, in which it is "
            "to reset only (NEXT_STEP); the reward is not counted. If it has reset in the step "
            "before, these are steps of an episode that are lost: it must give final_obs, or "
            'declare DISABLED: metadata = {"autoreset_mode": ...}',
            rewards[is_padding & (rewards != 0)][0],
        )

    def _note_ends(self, ended: BoolArray) -> None:
        """Notes in which slots the next action is ignored."""
        self._ended = ended
        self._has_ended = bool(np.count_nonzero(ended))

    def _forget_ends(self) -> None:
        """Clears the state of episodes before a reset."""
        self._ended = np.zeros(self.num_slots, np.bool_)
        self._has_ended = False

    def _make_leaves(self, observation: Any) -> Observations:
        """Returns leaf name -> [N, ...] for raw observations of all slots, and their masks."""
        leaves = self._make_seen_leaves(observation)
        if self._masks is not None:
            leaves[self._masks.leaf.name] = self._masks.current
        elif self._observed_mask:
            require_flags(leaves[self._observed_mask], f"{self._observed_mask} of the environment")
        return leaves

    def _make_seen_leaves(self, observation: Any) -> Observations:
        if self._encode is not None:
            return self._encode(observation)
        if not isinstance(observation, np.ndarray):
            raise self._mismatch("", "an array", type(observation).__name__)
        if observation.shape != self._leaf_shape:
            raise self._mismatch(".shape", self._leaf_shape, observation.shape)
        # Identity first: numpy dtypes are usually singletons, and `is` is cheaper than `==`.
        if observation.dtype is not self._leaf_dtype and observation.dtype != self._leaf_dtype:
            raise self._mismatch(".dtype", self._leaf.dtype, observation.dtype.name)
        return {self._leaf.name: without_negative_strides(observation)}

    def _make_leaves_of_one(self, observation: Any) -> Observations:
        """Returns leaf name -> [...] for the raw observation of one slot."""
        if self._encode is not None:
            return self._encode.encode_one(observation)
        if np.shape(observation) != self._leaf.shape:
            raise self._mismatch(".shape", self._leaf.shape, np.shape(observation))
        return {self._leaf.name: np.asarray(observation)}

    def _mismatch(self, what: str, expected: object, actual: object) -> SpecMismatchError:
        """Returns the error for an environment that breaks its own declared space."""
        return SpecMismatchError(f"{self._leaf.name}{what} of the environment", expected, actual)

    def _raise_explained(self, error: BaseException) -> NoReturn:
        explained = error if self._explain is None else self._explain(error)
        if explained is error:
            raise error
        raise explained from error


def without_negative_strides(values: NDArray[Any]) -> NDArray[Any]:
    """Returns an array that torch takes, too: a view such as frames[..., ::-1] is copied."""
    return np.ascontiguousarray(values) if min(values.strides, default=0) < 0 else values
