"""make_batch: converts a caller's dictionary to a training batch.

The caller's arrays are written into a batch slot of the learner's layout and read by the learner's
loader, so that only those define rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_common.codec.frames import split_frames
from impala_common.errors import SpecMismatchError
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec, UnrollLeaf, UnrollSpec
from impala_server.learner.batch_loader import Batch, BatchLoader
from impala_server.storage.handoff import FinishedEpisode
from impala_server.storage.layout import FRAME_INDEX, FRAMES, POLICY_VERSION, StorageLayout

Array = np.ndarray[Any, Any]
_MAY_BE_MISSING = ("is_padding", "truncated", "is_first", "previous_action", "previous_reward")
_OWN_KEYS = ("observations", "policy_version", "episode_returns", "episode_steps")


class PackedBatch(NamedTuple):
    """A batch and its finished episodes.

    Attributes:
      batch: on the learner's device.
      episodes: those that ended in it.
    """

    batch: Batch
    episodes: list[FinishedEpisode]


def make_batch(
    values: Mapping[str, Any],  # Any: tensors or arrays
    initial_agent_state: tuple[Any, ...] | None,
    environment: EnvironmentSpec,
    agent_state: tuple[TensorSpec, ...],
    model: ModelSpec,
    device: torch.device,
    policy_version: int,
) -> PackedBatch:
    """Returns the batch in `values`.

    Args:
      values: time-major tensors or arrays by glossary name: observations (one [T+1, B, ...],
        or a dictionary by leaf), actions, behaviour_policy_logits, rewards, terminated: all
        [T, B, ...]. May be missing: truncated and is_padding (none), is_first [T+1, B] (rows after
        a padding row, and after a terminated one without a padding row behind it; not row 0),
        previous_action and previous_reward [B] (zero), policy_version [B] (the present one),
        episode_returns and episode_steps [T, B] (sums over the rows of the batch). Behind a
        truncated row comes a padding row with the final observation; where row T-1 is truncated,
        observation T is the final one. A terminated row needs no padding row.
      initial_agent_state: recurrent state before row 0, each [L, B, H]; None: of fresh episodes.
      environment: the environment's specification.
      agent_state: the network's recurrent state.
      model: the network.
      device: the learner's.
      policy_version: of the present weights.

    Raises:
      SpecMismatchError: an entry is missing, unknown, or of another shape, or the final observation
        of a truncated episode is missing; the text names it.
    """
    arrays = _named_arrays(values, environment)
    if "actions" not in arrays or arrays["actions"].ndim < 2:
        raise SpecMismatchError(
            "batch['actions']", "int64 [T, B]", _describe(arrays.get("actions"))
        )
    num_steps, num_unrolls = (int(size) for size in arrays["actions"].shape[:2])
    spec = UnrollSpec(num_steps, environment, agent_state)
    layout = StorageLayout(spec, num_unrolls, 1)
    buffer = memoryview(bytearray(layout.num_bytes))
    (views,) = layout.make_views(buffer)
    _add_states(arrays, initial_agent_state, agent_state)
    known = {leaf.tensor.name for leaf in spec.leaves} | set(_OWN_KEYS)
    for name in arrays:
        if name not in known:
            raise SpecMismatchError(f"batch[{name!r}]", f"one of {sorted(known)}", "that name")
    for leaf in spec.leaves:
        name = leaf.tensor.name
        array = _require(arrays, leaf, num_steps, num_unrolls)
        if spec.uses_unique_frames and name == spec.frame_leaf.name:
            _write_frames(views, array)
        elif array is not None:
            views[name][...] = array
    if "is_first" not in arrays:
        views["is_first"][...] = _find_first_rows(views)
    _require_final_observations(views)
    views[POLICY_VERSION][...] = arrays.get("policy_version", np.int64(policy_version))
    batch = BatchLoader(layout, buffer, model, torch.device("cpu")).load(0)
    return PackedBatch(_to_device(batch, device), _find_episodes(views, arrays))


def _named_arrays(values: Mapping[str, Any], environment: EnvironmentSpec) -> dict[str, Array]:
    """Returns arrays by leaf name."""
    flat = {name: value for name, value in values.items() if name != "observations"}
    observations = values.get("observations", {})
    if isinstance(observations, Mapping):
        flat |= observations
    else:
        flat[environment.observation_leaves[0].name] = observations
    return {
        name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for name, value in flat.items()
    }


def _add_states(
    arrays: dict[str, Array],
    initial_agent_state: tuple[Any, ...] | None,
    agent_state: tuple[TensorSpec, ...],
) -> None:
    if initial_agent_state is None:
        return
    if len(initial_agent_state) != len(agent_state):
        raise SpecMismatchError(
            "init_actor_states", f"{len(agent_state)} tensors", f"{len(initial_agent_state)}"
        )
    for spec, state in zip(agent_state, initial_agent_state, strict=True):
        state = state.detach().cpu().numpy() if isinstance(state, torch.Tensor) else state
        # Given in the form of networks, [L, B, H]; stored column by column, [B, L, H].
        arrays[spec.name] = np.moveaxis(np.asarray(state), 1, 0)


def _find_first_rows(views: Mapping[str, Array]) -> Array:
    """Returns bool [T+1, B]: an episode opens after a padding row, or right after a termination."""
    is_padding, terminated = views["is_padding"], views["terminated"]
    is_first = np.zeros((len(is_padding) + 1, *is_padding.shape[1:]), np.bool_)
    is_first[1:] = is_padding | terminated
    is_first[1:-1] &= is_padding[:-1] | ~is_padding[1:]
    return is_first


def _require_final_observations(views: Mapping[str, Array]) -> None:
    """Raises SpecMismatchError unless each truncated row bootstraps from its own episode.

    Only a termination sets the discount to 0: behind a truncated row the value of the next
    observation counts, so that it must be the final one, not the first of another episode.
    """
    is_final = ~views["is_first"][1:]
    is_final[:-1] &= views["is_padding"][1:]  # observation T has no row of its own
    bootstraps = views["truncated"] & ~views["terminated"] & ~views["is_padding"]
    is_missing = bootstraps & ~is_final
    for row, column in np.argwhere(is_missing).tolist():
        raise SpecMismatchError(
            f"batch['truncated'][{row}, {column}]",
            f"the final observation of its episode as observation {row + 1}, with is_first False "
            "and, before the last one, is_padding True",
            "the next episode there: add a padding row (see docs/glossary.md), or give the row as "
            "terminated if no final observation is known",
        )


def _require(
    arrays: Mapping[str, Array], leaf: UnrollLeaf, num_steps: int, num_unrolls: int
) -> Array | None:
    """Returns a leaf's array; None if it is optional and missing.

    Raises:
      SpecMismatchError: it is missing, or of another shape or kind of number.
    """
    tensor = leaf.tensor
    shape = leaf.shape(num_steps, num_unrolls)
    array = arrays.get(tensor.name)
    expected = f"{tensor.dtype} {list(shape)}"
    if array is None:
        if tensor.name in _MAY_BE_MISSING or tensor.name.startswith("initial_agent_state"):
            return None
        raise SpecMismatchError(f"batch[{tensor.name!r}]", expected, "nothing")
    if array.shape != shape or not np.can_cast(array.dtype, tensor.dtype, "same_kind"):
        raise SpecMismatchError(f"batch[{tensor.name!r}]", expected, _describe(array))
    return array


def _describe(array: Array | None) -> str:
    return "nothing" if array is None else f"{array.dtype} {list(array.shape)}"


def _write_frames(views: dict[str, Array], stacks: Array | None) -> None:
    assert stacks is not None
    unique = split_frames(stacks)
    views[FRAME_INDEX][...] = unique.frame_index
    start = 0
    for column, count in enumerate(unique.counts.tolist()):
        views[FRAMES][column, :count] = unique.frames[start : start + count]
        start += count


def _find_episodes(views: dict[str, Array], arrays: Mapping[str, Array]) -> list[FinishedEpisode]:
    """Returns the finished episodes, with the caller's returns and lengths or with sums."""
    ends = views["terminated"] | views["truncated"]
    if "episode_returns" in arrays and "episode_steps" in arrays:
        returns, steps = arrays["episode_returns"], arrays["episode_steps"]
        return [
            FinishedEpisode(float(returns[e]), int(steps[e]))
            for e in zip(*np.nonzero(ends), strict=True)
        ]
    episodes = []
    for column in range(ends.shape[1]):
        total, count = 0.0, 0
        for row in range(ends.shape[0]):
            if views["is_first"][row, column]:
                total, count = 0.0, 0
            if not views["is_padding"][row, column]:
                total, count = total + float(views["rewards"][row, column]), count + 1
            if ends[row, column]:
                episodes.append(FinishedEpisode(total, count))
                total, count = 0.0, 0
    return episodes


def _to_device(value: Any, device: torch.device) -> Any:  # Any: nested tuples and dictionaries
    """Returns `value` with every tensor in it on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _to_device(item, device) for name, item in value.items()}
    if isinstance(value, tuple):
        items = [_to_device(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value
