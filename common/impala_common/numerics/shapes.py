"""check_shape: checks tensor shapes in the first lines of numeric functions.

A docstring states shapes in the letters of the glossary; `check_shape` is given
the same letters and binds each to a size on first use, so that a tensor that disagrees with the
docstring, or with an earlier tensor, is refused before wrong broadcasting. Costs well under a
microsecond; never reads data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TRAILING = "..."
"""Last entry of `dims` that stands for any number of further dimensions."""


def check_shape(
    name: str, tensor: torch.Tensor, dims: tuple[str | int, ...], sizes: dict[str, int]
) -> None:
    """Raises ValueError unless `tensor` has the stated dimensions.

    Args:
      name: the tensor's name, for the error text.
      tensor: the tensor to check.
      dims: one entry per dimension: a letter, or a fixed size; a final "..." allows more.
      sizes: letters bound so far; letters met for the first time are added to it.
    """
    shape = tuple(tensor.shape)
    expected = dims
    if dims and dims[-1] == TRAILING:
        expected = dims[:-1]
        fits = len(shape) >= len(expected)
    else:
        fits = len(shape) == len(expected)
    if fits:
        for dim, size in zip(expected, shape, strict=False):
            want = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
            if want != size:
                fits = False
                break
    if not fits:
        raise ValueError(f"{name}: expected {_describe(dims, sizes)}, got {list(shape)}")


def _describe(dims: tuple[str | int, ...], sizes: dict[str, int]) -> str:
    """Returns the dimensions as text, with the sizes of letters that are bound."""
    words = [f"{dim}={sizes[dim]}" if dim in sizes else str(dim) for dim in map(str, dims)]
    return f"[{', '.join(words)}]"
