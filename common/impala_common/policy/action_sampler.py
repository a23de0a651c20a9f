"""choose_actions: samples flat actions from flat logits, in numpy.

The actor's counterpart of `impala_common.numerics.distributions`: the same actions with the same
probabilities. Uses numpy, because torch's calls cost more than the arithmetic for a row of slots,
and because a numpy generator makes draws repeatable.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from impala_common.spec.action_spec import ActionSpec

Array = np.ndarray[Any, Any]

_LEAST_NOISE = np.finfo(np.float32).tiny


def choose_actions(action: ActionSpec, logits: Array, random: np.random.Generator | None) -> Array:
    """Draws one action for each row of logits.

    Args:
      action: specification of an action.
      logits: float32 [N, P].
      random: source of draws; None: take the mode of each distribution.

    Returns:
      int64 or float32 [N, ...], as `action.tensor` says.
    """
    if action.is_single_categorical:
        return _choose_categorical(logits, random)
    tensor = action.tensor
    num_rows = len(logits)
    actions = np.empty((num_rows, *tensor.shape), tensor.dtype)
    for group in action.groups:
        part = logits[:, group.logits]
        num_components = group.num_components
        if group.kind == "categorical":
            choices = part.reshape(num_rows, num_components, group.size)
            actions[:, group.actions] = _choose_categorical(choices, random)
        elif group.kind == "bernoulli":
            actions[:, group.actions] = _choose_bernoulli(part, random)
        else:
            means, log_stds = part[:, :num_components], part[:, num_components:]
            actions[:, group.actions] = _choose_gaussian(means, log_stds, random)
    return actions


def _choose_categorical(logits: Array, random: np.random.Generator | None) -> Array:
    """Returns int64 [...] for logits [..., A]."""
    if random is None:
        return np.asarray(logits.argmax(axis=-1))
    # Gumbel-max: -log of a standard exponential is Gumbel-distributed. The addition only affects
    # draws of 0, which occur once in millions.
    noise = random.standard_exponential(logits.shape, dtype=np.float32)
    chosen: Array = (logits - np.log(noise + _LEAST_NOISE)).argmax(axis=-1)
    return chosen


def _choose_bernoulli(logits: Array, random: np.random.Generator | None) -> Array:
    """Returns bool [N, n] for the logits of True."""
    if random is None:
        return np.asarray(logits > 0.0)
    # The logistic distribution, log(u / (1 - u)), has the sigmoid as its distribution function.
    uniform = random.random(logits.shape)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(uniform) - np.log1p(-uniform) < logits)


def _choose_gaussian(means: Array, log_stds: Array, random: np.random.Generator | None) -> Array:
    """Returns float32 [N, n], unclipped."""
    if random is None:
        return means
    noise = random.standard_normal(means.shape, dtype=np.float32)
    return np.asarray(means + np.exp(log_stds) * noise)
