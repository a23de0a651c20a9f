"""Running statistics of observations and rewards, as buffers around a network.

The learner updates them, once per batch and under its update lock; actors and evaluators
only read them. As buffers they are part of `state_dict`, so that published snapshots,
checkpoints and rollback carry them like weights, and no optimizer sees them. All changes are in
place: a tensor of `state_dict` always has the present numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.models.inputs import find_leaf_layout
from impala_common.models.nature_cnn import MIN_SIDE
from impala_common.numerics.vtrace import compute_suffix_recursion
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec

Combine = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Of new rows: number, mean and sum of squared deviations here -> those of all learner ranks."""

VARIANCE_EPS = 1e-8
"""Added to variances of observations before the root: a constant one has a deviation above 0."""
_LEAST_SHARE = 0.01
_WIDE_TYPES = (torch.float64, torch.int32, torch.int64, torch.uint32, torch.uint64)


class RunningMoments(nn.Module):
    """Mean and variance of all rows counted so far, element by element, in float64.

    Before the first row the mean is 0 and the variance 1, which leaves inputs unchanged.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Starts without rows; a row has `shape`."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        """Standard deviation, float64, greater than 0."""
        return (self.variance + VARIANCE_EPS).sqrt()

    @torch.no_grad()
    def update(self, rows: Tensor, is_counted: Tensor, combine: Combine | None = None) -> None:
        """Adds rows, by the formula of Chan, Golub and LeVeque (1979) for two sets.

        With n, mean and M (the sum of squared deviations) of the rows so far and of the new
        ones (marked '), and d = mean' - mean:

            mean <- mean + d n' / (n + n')
            M    <- M + M' + d^2 n n' / (n + n')

        Args:
          rows: [T, B, ...]: of any element type; rows that are not counted may have any values.
          is_counted: bool [T, B].
          combine: adds the rows of the other learner ranks; None: there are none.
        """
        mask = is_counted.view(*is_counted.shape, *(1,) * self.mean.ndim)
        num_new = is_counted.sum().to(torch.float64)
        rows = rows.to(torch.float64).where(mask, 0.0)
        mean_new = self._average(rows).sum(dim=(0, 1)) / num_new.clamp(min=1.0)
        deviations = (rows - mean_new).where(mask, 0.0)
        squares_new = self._average(deviations.square_()).sum(dim=(0, 1))
        if combine is not None:
            num_new, mean_new, squares_new = combine(num_new, mean_new, squares_new)
        total = (self.count + num_new).clamp_(min=1.0)
        # Without new rows nothing may change, not even the initial variance.
        has_new = num_new > 0
        difference = mean_new - self.mean
        squares = self.variance * self.count + squares_new
        squares += difference.square() * (self.count * num_new / total)
        self.variance.copy_(torch.where(has_new, squares / total, self.variance))
        self.mean.add_(torch.where(has_new, difference * (num_new / total), 0.0))
        self.count.add_(num_new)

    def _average(self, rows: Tensor) -> Tensor:
        """Returns rows averaged over the elements that share a mean: [T, B, *mean.shape]."""
        shared = [
            axis + 2
            for axis, (side, kept) in enumerate(zip(rows.shape[2:], self.mean.shape, strict=True))
            if side != kept
        ]
        return rows.mean(dim=shared, keepdim=True) if shared else rows

    def normalise(self, rows: Tensor, clip: float) -> Tensor:
        """Returns float32 rows of mean 0 and deviation 1, clipped to [-clip, clip].

        Rows of types wider than float32 holds exactly (float64, integers of 32 and 64 bits) are
        shifted in float64, which keeps a small spread around a large mean.
        """
        rows = rows.to(torch.float64 if rows.dtype in _WIDE_TYPES else torch.float32)
        shifted = (rows - self.mean.to(rows.dtype)) * self.std.reciprocal().to(rows.dtype)
        return shifted.clamp(-clip, clip).to(torch.float32)


def is_normalised(leaf: TensorSpec, has_integers: bool) -> bool:
    """Returns whether a leaf is among those that normalisation of observations is for.

    These are leaves of floating-point type and, with `has_integers`, of integer type, except for
    pictures of bytes: uint8, two sides of at least MIN_SIDE. Smaller images may hold codes that use
    little of their space's range, such as MiniGrid's 7 x 7 codes from 0 to 10 in a space of 0 to
    255, and what the numbers of a wider type mean is not known.
    """
    return leaf.dtype.startswith("float") or (has_integers and _is_integer(leaf))


def _is_integer(leaf: TensorSpec) -> bool:
    """Returns whether a leaf is of integer type and no picture of bytes."""
    is_picture = leaf.dtype == "uint8" and sum(side >= MIN_SIDE for side in leaf.shape) >= 2
    return "int" in leaf.dtype and not is_picture


def with_normalised_integers(environment: EnvironmentSpec) -> EnvironmentSpec:
    """Returns `environment` as a network behind the normalisation of integers sees it."""
    leaves = (
        dataclasses.replace(leaf, dtype="float32") if _is_integer(leaf) else leaf
        for leaf in environment.observation_leaves
    )
    return dataclasses.replace(environment, observation_leaves=tuple(leaves))


def _moments_shape(leaf: TensorSpec, frame_stack: int) -> tuple[int, ...]:
    """Returns the shape of a leaf's mean: one for each channel of an image of integers."""
    layout = find_leaf_layout(leaf, frame_stack) if _is_integer(leaf) else None
    if layout is None:
        return leaf.shape
    channels = layout.num_channels
    return (1, 1, channels) if layout.has_channels_last else (channels, 1, 1)


class NormalisedModel(AgentModel):
    """A network with normalised observations as inputs, and the statistics of rewards.

    Attributes:
      network: the wrapped network.
      leaf_names: leaves that are normalised, as `is_normalised` says.
      observation_moments: their statistics, in the order of leaf_names.
      reward_moments: statistics of discounted sums of rewards; None without reward normalisation.
    """

    def __init__(self, network: AgentModel, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        """Wraps `network` as `spec` says."""
        super().__init__()
        self.network = network
        self.observation_clip = spec.observation_clip
        leaves = [
            leaf
            for leaf in environment.observation_leaves
            if spec.normalise_observations and is_normalised(leaf, spec.normalise_integers)
        ]
        self.leaf_names = tuple(leaf.name for leaf in leaves)
        self.observation_moments = nn.ModuleList(
            RunningMoments(_moments_shape(leaf, environment.frame_stack)) for leaf in leaves
        )
        self.reward_moments = RunningMoments(()) if spec.normalise_rewards else None

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns the network's specs."""
        return self.network.agent_state_specs()

    def initial_state(self, batch_size: int) -> AgentState:
        """Returns the network's initial state."""
        return self.network.initial_state(batch_size)

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs the network on normalised observations; see AgentModel."""
        outputs: ModelOutputs = self.network(self._normalise(inputs), state)
        return outputs

    def act(self, inputs: ModelInputs, state: AgentState) -> tuple[Tensor, AgentState]:
        """Runs the network's policy on normalised observations; see AgentModel."""
        return self.network.act(self._normalise(inputs), state)

    @property
    def reward_std(self) -> Tensor | None:
        """Divisor of rewards, float64, above 0; None without reward normalisation.

        The deviation of discounted sums, of whatever scale; where they hardly vary, a share of
        their mean.
        """
        if self.reward_moments is None:
            return None
        least = _LEAST_SHARE * self.reward_moments.mean.abs()
        std = torch.maximum(self.reward_moments.variance.sqrt(), least)
        return torch.where(std > 0.0, std, 1.0)  # no reward yet

    def statistics(self) -> list[Tensor]:
        """Returns the tensors that `update_statistics` changes, to save and restore them."""
        own: list[nn.Module] = [*self.observation_moments]
        if self.reward_moments is not None:
            own.append(self.reward_moments)
        return [buffer for moments in own for buffer in moments.buffers()]

    @torch.no_grad()
    def update_statistics(
        self,
        inputs: ModelInputs,
        rewards: Tensor,
        is_padding: Tensor,
        discount: float,
        combine: Combine | None = None,
    ) -> None:
        """Counts one batch. For the learner only.

        Observation T is left out: it is observation 0 of the slot's next unroll.

        Args:
          inputs: [T+1, B]: observations and is_first are used.
          rewards: float32 [T, B]: raw.
          is_padding: bool [T, B]: rows that do not count.
          discount: discount of the sums of rewards.
          combine: adds the batches of the other learner ranks; None: there are none.
        """
        is_counted = ~is_padding
        for name, moments in zip(self.leaf_names, self.observation_moments, strict=True):
            assert isinstance(moments, RunningMoments)
            moments.update(inputs.observations[name][:-1], is_counted, combine)
        if self.reward_moments is not None:
            sums = compute_discounted_sums(
                rewards.masked_fill(is_padding, 0.0), inputs.is_first[:-1], discount
            )
            self.reward_moments.update(sums, is_counted, combine)

    def _normalise(self, inputs: ModelInputs) -> ModelInputs:
        observations = dict(inputs.observations)
        for name, moments in zip(self.leaf_names, self.observation_moments, strict=True):
            assert isinstance(moments, RunningMoments)
            observations[name] = moments.normalise(observations[name], self.observation_clip)
        return inputs._replace(observations=observations)


def compute_discounted_sums(rewards: Tensor, is_first: Tensor, discount: float) -> Tensor:
    """Returns the discounted sum of rewards up to each row.

        sum_t = r_t + discount x sum_{t-1},   sum_{t-1} = 0 where is_first[t], and at row 0

    Rewards of an episode before the unroll are not known here and count as 0.

    Args:
      rewards: float [T, B]: 0 on padding rows.
      is_first: bool [T, B]: row t opens an episode.
      discount: in [0, 1].

    Returns:
      float [T, B].
    """
    factors = torch.where(is_first, 0.0, discount).to(rewards.dtype)
    return compute_suffix_recursion(rewards.flip(0), factors.flip(0)).flip(0)
