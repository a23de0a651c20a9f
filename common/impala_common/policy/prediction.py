"""predict: one decision for observations as an environment gives them.

Keeps nothing between calls: memory is an argument and a result. Used by
`IMPALA.predict` and `FrozenPolicy.predict`, on the caller's thread. numpy only; the network is a
function that the caller passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from impala_common.errors import ConfigError, SpecMismatchError
from impala_common.policy.action_sampler import choose_actions
from impala_common.policy.inference.backend import Array, StepInputs
from impala_common.spec.action_decoding import decode_actions
from impala_common.spec.specs import EnvironmentSpec, OneHotLeaf, TensorSpec


class PredictState(NamedTuple):
    """What a policy remembers between two calls of `predict`.

    Attributes:
      agent_state: recurrent state, each float32 [L, N, H]; empty without memory.
      previous_actions: [N, ...]: flat actions of the call before.
    """

    agent_state: tuple[Array, ...]
    previous_actions: Array


RunNetwork = Callable[[StepInputs, tuple[Array, ...]], tuple[Array, tuple[Array, ...]]]
"""Returns logits float32 [N, P] and the next recurrent state; an empty state is that of fresh
episodes."""


def predict(
    run_network: RunNetwork,
    environment: EnvironmentSpec,
    observation: Any,  # Any: as the environment's space is nested
    state: PredictState | None,
    random: np.random.Generator | None,
    *,
    is_fed_back: bool = False,
    episode_start: Any = None,  # Any: a bool, or an array or list of them
    reward: Any = None,  # Any: a number, or an array or list of them
    action_mask: Any = None,  # Any: an array or list of bools
) -> tuple[Any, PredictState]:
    """Returns actions for one observation or a batch of them, and the next state.

    Args:
      run_network: the network.
      environment: specification of observations and actions.
      observation: of one environment, or of N with a leading dimension.
      state: result of the call before; None: episodes begin.
      random: source of draws; None: the likeliest action.
      is_fed_back: whether the network gets the previous reward, so that `reward` is needed.
      episode_start: whether the observation opens an episode, of each of N; None: if `state` is
        None.
      reward: of the step before, of each of N.
      action_mask: legal actions, where the environment reports them beside the observation.

    Raises:
      SpecMismatchError: an observation has another shape or type.
      ConfigError: `reward` or `state` is missing or of another number of environments.
    """
    leaves, is_batch = _read_observation(environment, observation, action_mask)
    num_slots = len(next(iter(leaves.values())))
    tensor = environment.action.tensor
    if state is None:
        is_first = np.ones(num_slots, np.bool_)
        agent_state: tuple[Array, ...] = ()
        previous = np.zeros((num_slots, *tensor.shape), tensor.dtype)
    else:
        agent_state, previous = state
        is_first = np.zeros(num_slots, np.bool_)
        if len(previous) != num_slots:
            raise ConfigError(
                "state",
                f"of {len(previous)} environments",
                f"of {num_slots}, as the observation",
                "pass the state of the call before for the same environments, or None",
            )
    if episode_start is not None:
        is_first = np.array(np.broadcast_to(np.asarray(episode_start, np.bool_), num_slots))
    if reward is None and is_fed_back and not is_first.all():
        raise ConfigError(
            "reward", None, "the reward of the step before", "this network has it as an input"
        )
    rewards = np.broadcast_to(np.asarray(0.0 if reward is None else reward, np.float32), num_slots)
    rewards = np.where(is_first, np.float32(0.0), rewards)
    shape = (num_slots,) + (1,) * (previous.ndim - 1)
    previous = np.where(is_first.reshape(shape), previous.dtype.type(0), previous)
    logits, next_state = run_network(StepInputs(leaves, is_first, previous, rewards), agent_state)
    chosen = choose_actions(environment.action, logits, random)
    actions = decode_actions(environment.action, chosen)
    return (actions if is_batch else _first_of(actions)), PredictState(next_state, chosen)


def _read_observation(
    environment: EnvironmentSpec,
    observation: Any,
    action_mask: Any,  # Any: see `predict`
) -> tuple[dict[str, Array], bool]:
    """Returns the leaves [N, ...], and whether the observation had a leading dimension."""
    leaves: dict[str, Array] = {}
    ranks: set[bool] = set()
    one_hot_leaves = {one.name: one for one in environment.one_hot_leaves}
    for spec in environment.observation_leaves:
        is_mask = spec.role == "action_mask" and action_mask is not None
        value = np.asarray(action_mask if is_mask else _find(spec, observation))
        value = _encode(spec, value, one_hot_leaves.get(spec.name))
        is_batch = value.ndim == len(spec.shape) + 1
        if value.shape[is_batch:] != spec.shape or (is_batch and len(value) == 0):
            raise SpecMismatchError(
                spec.name, f"shape {list(spec.shape)}, or [N, ...] of it", list(value.shape)
            )
        if not np.can_cast(value.dtype, spec.dtype, "same_kind"):
            raise SpecMismatchError(f"{spec.name}.dtype", spec.dtype, value.dtype.name)
        ranks.add(is_batch)
        value = value if is_batch else value[np.newaxis]
        leaves[spec.name] = np.ascontiguousarray(value, spec.dtype)
    if len(ranks) > 1 or len({len(value) for value in leaves.values()}) > 1:
        shapes = {name: list(value.shape) for name, value in leaves.items()}
        raise SpecMismatchError("observation", "parts of the same number of environments", shapes)
    return leaves, ranks.pop()


def _find(spec: TensorSpec, observation: Any) -> Any:
    """Returns the part of an observation that a leaf's name leads to."""
    for key in spec.name.split("/")[1:]:
        try:
            is_mapping = isinstance(observation, Mapping)
            observation = observation[unquote(key) if is_mapping else int(key)]
        except (LookupError, TypeError, ValueError) as error:
            more = " (or pass action_mask)" if spec.role == "action_mask" else ""
            raise SpecMismatchError(
                spec.name, f"an observation with {key!r}{more}", type(observation).__name__
            ) from error
    return observation


def _encode(spec: TensorSpec, value: Array, one_hot: OneHotLeaf | None) -> Array:
    """Returns integers of a Discrete or MultiDiscrete space as the one-hot vectors of their leaf.

    A run of an earlier version does not say which leaves these are (`one_hot` is None): there, a
    whole number in place of a vector is taken for that of a Discrete from 0.
    """
    if one_hot is not None:
        return one_hot.encode(value)
    is_number = value.ndim == 0 or (value.ndim == 1 and spec.shape != value.shape)
    if not (is_number and len(spec.shape) == 1 and value.dtype.kind in "iu"):
        return value
    width = spec.shape[0]
    if (value < 0).any() or (value >= width).any():
        raise SpecMismatchError(spec.name, f"numbers from 0 to {width - 1}", value.tolist())
    return np.eye(width, dtype=np.float32)[value]


def _first_of(actions: Any) -> Any:  # Any: see `decode_actions`
    """Returns the action of the only environment."""
    if isinstance(actions, Mapping):
        return {key: _first_of(value) for key, value in actions.items()}
    if isinstance(actions, tuple):
        return tuple(map(_first_of, actions))
    return actions[0]
