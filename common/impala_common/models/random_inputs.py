"""Random inputs for checking networks, without effect on global random state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from impala_common.errors import ModelError
from impala_common.models.contract import AgentState, ModelInputs
from impala_common.numerics.distributions import make_policies
from impala_common.spec.specs import EnvironmentSpec, TensorSpec

NUM_ROWS, NUM_COLUMNS = 2, 3
"""T and B of the data."""
SEED = 20
"""Seed of the data, and of random numbers that the network draws meanwhile."""


def make_inputs(
    environment: EnvironmentSpec, device: torch.device, seed: int = SEED
) -> ModelInputs:
    """Returns inputs [T, B]: floats in [0, 1), integers 0 or 1; column 1 opens at row 0, 2 at 1."""
    random = torch.Generator().manual_seed(seed)
    rows = (NUM_ROWS, NUM_COLUMNS)
    is_first = torch.zeros(rows, dtype=torch.bool)
    is_first[0, 1] = is_first[1, 2] = True
    logits = torch.rand((*rows, environment.action.num_logits), generator=random)
    actions = make_policies(environment.action, logits).sample(random)
    is_reset = is_first if actions.ndim == 2 else is_first.unsqueeze(-1)
    rewards = torch.rand(rows, generator=random)
    observations = {
        leaf.name: _make_leaf((*rows, *leaf.shape), leaf.dtype, random).to(device)
        for leaf in environment.observation_leaves
    }
    return ModelInputs(
        observations,
        is_first.to(device),
        actions.masked_fill(is_reset, 0).to(device),
        rewards.masked_fill(is_first, 0.0).to(device),
    )


def _make_leaf(shape: tuple[int, ...], dtype: str, random: torch.Generator) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.rand(shape, generator=random).to(kind)
    return torch.randint(2, shape, generator=random).to(kind)


def make_state(specs: tuple[TensorSpec, ...], inputs: ModelInputs) -> AgentState:
    """Returns a state that is not 0."""
    random = torch.Generator().manual_seed(SEED)
    num_columns, device = inputs.is_first.shape[1], inputs.is_first.device
    return tuple(
        torch.rand((spec.shape[0], num_columns, *spec.shape[1:]), generator=random).to(device)
        for spec in specs
    )


def take_part(
    inputs: ModelInputs, rows: slice = slice(None), columns: slice = slice(None)
) -> ModelInputs:
    """Returns some rows and columns of inputs."""
    return ModelInputs(
        {name: leaf[rows, columns] for name, leaf in inputs.observations.items()},
        *(tensor[rows, columns] for tensor in inputs[1:]),
    )


def take_first_column(state: AgentState) -> AgentState:
    """Returns the state of column 0 alone, as a batch of 1."""
    return tuple(tensor[:, :1].contiguous() for tensor in state)


def count_logits(environment: EnvironmentSpec) -> int:
    """Returns the width of policy_logits."""
    return environment.action.num_logits


def describe_observations(inputs: ModelInputs) -> str:
    """Returns names, element types and shapes of the observations."""
    return ", ".join(
        f"{name} {name_of_dtype(leaf.dtype)} {list(leaf.shape)}"
        for name, leaf in inputs.observations.items()
    )


def name_of_dtype(dtype: torch.dtype) -> str:
    """Returns the name of the dtype in specifications."""
    return str(dtype).removeprefix("torch.")


@contextlib.contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Restores weights, buffers, modes and the CPU's random stream.

    Raises:
      ModelError: a parameter or buffer was replaced by another tensor meanwhile.
    """
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    kept = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    modes = [(child, child.training) for child in module.modules()]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(kept[name])
            for child, mode in modes:
                child.training = mode
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensors.get(name) is not tensor:
            raise ModelError(
                f"{name}: forward must not exchange a parameter or buffer for another tensor; "
                "change it in place (copy_)"
            )
