"""An environment whose observations carry a signature, and the function that reads it.

`SignedBandit-v0` shows a cue and pays 1 for the action that the cue names, eight times an
episode: the best return is 8, chance is 8/3. Beside the cue stand a number of the environment's
own, drawn when it is made, and a count of its observations. Both are scaled so small that no
network notices them, and so that float32 holds them exactly. So the history checker can identify
the environment and the time of every row that was trained on.
"""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

import gymnasium
import numpy as np

from impala_common.run.event_history import unpack_rows
from impala_common.testing.environments import Info, Observation, TinyEnv

SIGNED_ID = "impala_common.testing.patterns:SignedBandit-v0"
BEST_RETURN = 8.0
_SCALE = 2.0**-34
_BITS = 24  # what float32 holds exactly
_NUM_CUES = 3
WIDTH = _NUM_CUES + 2


class SignedBanditEnv(TinyEnv):
    """See the module."""

    def __init__(self, step_s: float = 0.0) -> None:
        """Makes one; each step takes `step_s` seconds, so that a machine is not kept busy."""
        super().__init__(WIDTH, _NUM_CUES)
        self._token = secrets.randbelow(1 << _BITS)
        self._num_observations = -1
        self._step_s = step_s
        self._cue = self._t = 0

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Judges the action."""
        if self._step_s:
            time.sleep(self._step_s)
        reward = float(action == self._cue)
        self._t += 1
        return self._observe(), reward, self._t == int(BEST_RETURN), False, {}

    def _start(self) -> Observation:
        self._t = 0
        return self._observe()

    def _observe(self) -> Observation:
        self._cue = int(self.np_random.integers(_NUM_CUES))
        self._num_observations = (self._num_observations + 1) % (1 << _BITS)
        observation = np.zeros(WIDTH, np.float32)
        observation[self._cue] = 1.0
        observation[_NUM_CUES:] = (self._token * _SCALE, self._num_observations * _SCALE)
        return observation


class Pattern(NamedTuple):
    """Environment of an unroll, and its first and last observation by the environment's count.

    `num_repeated` rows at the end repeat the last observation, where a policy server closed the
    unroll of a slot that was gone.
    """

    first: int
    last: int
    token: int
    num_repeated: int = 0


def read_pattern(text: str, num_rows: int) -> Pattern | str:
    """Returns the signature of the rows, or the error in them.

    Args:
      text: rows of SignedBandit-v0 as the history has them.
      num_rows: T+1.
    """
    rows = unpack_rows(text, (num_rows, WIDTH))
    tokens, counts = np.rint(rows[:, _NUM_CUES:].T.astype(np.float64) / _SCALE).astype(np.int64)
    if len(set(tokens.tolist())) > 1:
        return f"rows of environments {sorted(set(tokens.tolist()))} in one unroll"
    num_repeated = int(np.count_nonzero(counts == counts[-1])) - 1
    if (np.diff(counts[: num_rows - num_repeated]) != 1).any():
        return f"observations {counts.tolist()} are not one after the other"
    return Pattern(int(counts[0]), int(counts[-1]), int(tokens[0]), num_repeated)


if "SignedBandit-v0" not in gymnasium.registry:
    gymnasium.register(
        "SignedBandit-v0", entry_point=SIGNED_ID.replace("SignedBandit-v0", "SignedBanditEnv")
    )
