"""EnvironmentAdapter: the interface between the actor and every environment backend.

Wraps a Gymnasium vector environment with NEXT_STEP autoreset: the step after an
end ignores its action and returns the reset observation. Those rows are marked as padding here; all
other code is independent of how an environment resets. `impala_actor.environments.pause_row`
converts vector environments with the other two autoreset modes. Owned by the one thread that steps
it; numpy only, never torch or gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.step_values import clean_flags, clean_rewards
from impala_common.errors import SpecMismatchError
from impala_common.spec.specs import EnvironmentSpec

BoolArray = NDArray[np.bool_]
Observations = dict[str, NDArray[Any]]  # Any: each leaf has the dtype its spec names
DecodeActions = Callable[[NDArray[Any]], Any]  # Any: arrays, or dicts and tuples of them
"""Turns flat actions [N, ...] into the argument of the vector environment's step."""
Explain = Callable[[Exception], Exception]
"""Returns a more specific error for an exception of the vector environment, or the exception."""


FINAL_OBSERVATIONS = {"final_obs", "final_observation"}
"""Keys of infos under which SAME_STEP vector environments keep final observations."""


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
        episode that ended in this step this is its final observation.
      rewards: float32 [N]: raw rewards of the step; 0 on padding rows.
      terminated: bool [N]: the episode ended for good; False on padding rows.
      truncated: bool [N]: the episode was cut; False on padding rows.
      is_padding: bool [N]: the action was ignored; no loss, statistic or step count uses the row.
      is_first: bool [N]: `observations` opens an episode, so recurrent state is
        reset before it is consumed. Always use this, not is_padding: they differ
        with pause rows (padding in all slots, but only some are reset) and
        where a lost life ends an episode (the next observation opens an
        episode without any padding row).
    """

    observations: Observations
    rewards: NDArray[np.float32]
    terminated: BoolArray
    truncated: BoolArray
    is_padding: BoolArray
    is_first: BoolArray


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
      encode: turns raw observations into the observation leaves; None: the observation is the only
      leaf.
      decode_actions: turns flat actions into the environment's; None: both are equal.
      explain: maps errors of the vector environment to errors to raise; None: they are raised
      unchanged.
    """

    def __init__(
        self,
        vector_env: VectorEnvironment,
        spec: EnvironmentSpec,
        *,
        has_slot_seeds: bool = True,
        encode: Encode | None = None,
        decode_actions: DecodeActions | None = None,
        explain: Explain | None = None,
    ) -> None:
        self.spec = spec
        self.num_slots = vector_env.num_envs
        self._vector_env = vector_env
        self._has_slot_seeds = has_slot_seeds
        self._encode = encode
        self._explain = explain
        self._leaf = spec.observation_leaves[0]
        self._leaf_shape = (self.num_slots, *self._leaf.shape)
        self._leaf_dtype = np.dtype(self._leaf.dtype)
        self._decode_actions = decode_actions
        self._ended = np.zeros(self.num_slots, np.bool_)
        self._has_ended = False

    def reset(self, seed: int) -> Observations:
        """Starts a new episode in every slot; each slot's seed derives from (seed, slot).

        A vector environment with a single generator for all slots gets one seed.

        Returns:
          leaf name -> [N, ...]: the first observations.
        """
        seeds = derive_slot_seeds(seed, self.num_slots)
        try:
            observation, _infos = self._vector_env.reset(
                seed=self._pack_seeds(seeds) if self._has_slot_seeds else seeds[0]
            )
        except Exception as error:
            self._raise_explained(error)
        self._forget_ends()
        return self._make_leaves(observation)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Takes one step in every slot.

        Args:
          actions: [N, ...]: flat actions as `spec.action.tensor` says; ignored in slots
            whose episode ended in the step before.
        """
        if self._decode_actions is not None:
            actions = self._decode_actions(actions)
        try:
            observation, rewards, terminated, truncated, infos = self._vector_env.step(actions)
        except Exception as error:
            self._raise_explained(error)
        num_slots, is_padding = self.num_slots, self._ended
        rewards = clean_rewards(rewards, num_slots)
        terminated = clean_flags("terminated", terminated, num_slots)
        truncated = clean_flags("truncated", truncated, num_slots)
        if self._has_ended:
            rewards = np.where(is_padding, np.float32(0.0), rewards)
            terminated = terminated & ~is_padding
            truncated = truncated & ~is_padding
        leaves = self._make_leaves(observation)
        self._ended = terminated | truncated
        self._has_ended = bool(np.count_nonzero(self._ended))
        if self._has_ended and FINAL_OBSERVATIONS & infos.keys():
            raise SpecMismatchError(
                "metadata['autoreset_mode'] of the vector environment",
                "AutoresetMode.SAME_STEP, since its infos hold final observations",
                "nothing, or NEXT_STEP",
            )
        return StepResult(leaves, rewards, terminated, truncated, is_padding, is_padding)

    def render(self) -> Any:  # Any: what the environment draws; see RenderedEnvironment
        """Returns the vector environment's picture of each slot, or None."""
        return self._vector_env.render()

    @property
    def frames_per_s(self) -> float | None:
        """Frames per second of its pictures, or None if it declares none."""
        return getattr(self._vector_env, "metadata", {}).get("render_fps")

    def close(self) -> None:
        """Frees the resources of the environment."""
        self._vector_env.close()

    def _pack_seeds(self, seeds: list[int]) -> Any:  # Any: what the environment's reset takes
        """Returns the per-slot seeds in the form the vector environment takes."""
        return seeds

    def _forget_ends(self) -> None:
        """Clears the state of episodes before a reset."""
        self._ended = np.zeros(self.num_slots, np.bool_)
        self._has_ended = False

    def _make_leaves(self, observation: Any) -> Observations:
        """Returns leaf name -> [N, ...] for raw observations of all slots."""
        if self._encode is not None:
            return self._encode(observation)
        if not isinstance(observation, np.ndarray):
            raise self._mismatch("", "an array", type(observation).__name__)
        if observation.shape != self._leaf_shape:
            raise self._mismatch(".shape", self._leaf_shape, observation.shape)
        # Identity first: numpy dtypes are usually singletons, and `is` is cheaper than `==`.
        if observation.dtype is not self._leaf_dtype and observation.dtype != self._leaf_dtype:
            raise self._mismatch(".dtype", self._leaf.dtype, observation.dtype.name)
        return {self._leaf.name: observation}

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

    def _raise_explained(self, error: Exception) -> NoReturn:
        explained = error if self._explain is None else self._explain(error)
        if explained is error:
            raise error
        raise explained from error
