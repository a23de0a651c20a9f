"""Action masks that environments give in their infos, as an observation leaf.

Gymnasium's convention: `info["action_mask"]` of reset and step marks the legal actions with 1. It
becomes the bool leaf `observation/action_mask`. (A key "action_mask" of a Dict observation is a
leaf anyhow; `impala_actor.environments.spaces` gives it its role.) Owned by an adapter, or by the
guard of one slot; numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_common.errors import SpecMismatchError
from impala_common.spec.specs import OBSERVATION, ActionSpec, TensorSpec

KEY = "action_mask"
MASK_LEAF = f"{OBSERVATION}/{KEY}"
_IN_INFOS = "action_mask in the infos of the environment"

BoolArray = NDArray[np.bool_]


class InfoMasks:
    """The masks of all slots, read off the infos of a vector environment.

    Attributes:
      leaf: what they become.
      current: bool [N, P]: the newest masks; a new array after each read.
    """

    def __init__(self, action: ActionSpec, num_slots: int) -> None:
        """Everything is legal until `read`."""
        self._width = action.num_logits
        self.leaf = make_mask_leaf(action)
        self.current: BoolArray = np.ones((num_slots, self._width), np.bool_)

    def read(self, infos: Mapping[str, Any], slots: BoolArray | None = None) -> None:
        """Takes over the masks in `infos`; a slot without one may do everything.

        Args:
          infos: of reset or step.
          slots: bool [N]: only these were reset; None: all.

        Raises:
          SpecMismatchError: a mask does not fit the action space.
        """
        num_slots = len(self.current)
        masks = np.ones_like(self.current)
        raw, given = infos.get(KEY), infos.get(f"_{KEY}")
        if raw is not None:
            if isinstance(raw, np.ndarray) and raw.dtype.kind in "biuf":
                if raw.size != masks.size:
                    raise _mismatch(list(masks.shape), list(raw.shape))
                masks = _as_bools(raw.reshape(masks.shape))
            elif len(raw) == num_slots:
                masks = np.stack([flatten_mask(one, self._width) for one in raw])
            else:
                raise _mismatch(list(masks.shape), f"{type(raw).__name__} of {len(raw)}")
            if given is not None:
                masks = masks | ~np.asarray(given, np.bool_)[:, None]
        if slots is not None:
            masks = np.where(slots[:, None], masks, self.current)
        self.current = masks


def can_be_masked(action: ActionSpec) -> bool:
    """Returns whether an action is made of choices only: what a mask is about."""
    return all(part.kind == "categorical" for part in action.parts)


def make_mask_leaf(action: ActionSpec) -> TensorSpec:
    """Returns the leaf that masks in infos become: one flag for each logit."""
    return TensorSpec(MASK_LEAF, (action.num_logits,), "bool", "action_mask")


def flatten_mask(mask: Any, width: int) -> BoolArray:
    """Returns the mask of one slot as bool [P].

    Args:
      mask: an array of P numbers, a tuple of one array for each choice, or None: all is legal.
      width: P.

    Raises:
      SpecMismatchError: it has another number of elements.
    """
    if mask is None:
        return np.ones(width, np.bool_)
    try:
        parts = mask if isinstance(mask, tuple | list) else (mask,)
        flat = np.concatenate([np.ravel(np.asarray(part)) for part in parts])
    except ValueError as error:
        raise _mismatch([width], str(error)) from error
    if flat.shape != (width,) or flat.dtype.kind not in "biuf":
        raise _mismatch([width], f"{flat.dtype} {list(flat.shape)}")
    return _as_bools(flat)


def require_flags(mask: NDArray[Any], where: str = _IN_INFOS) -> None:
    """Raises SpecMismatchError for a mask of 0 and -inf, or of other numbers than 0 and 1."""
    if mask.dtype != np.bool_ and not ((mask == 0) | (mask == 1)).all():
        raise _mismatch(
            "each 0 (illegal) or 1 (legal)", f"other numbers: {mask.tolist()}"[:200], where
        )


def _as_bools(mask: NDArray[Any]) -> BoolArray:
    require_flags(mask)
    return np.asarray(mask != 0)


def _mismatch(expected: object, actual: object, where: str = _IN_INFOS) -> SpecMismatchError:
    return SpecMismatchError(
        where, f"one number for each choice of the action space, {expected}", actual
    )
