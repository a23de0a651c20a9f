"""RebuiltEnvironment: makes the environment again after its code raised an exception.

After an exception of an environment's own code the current unroll and episodes are lost, but actors
and evaluations go on: all slots are made again, after a pause that grows with each failure. After
too many failures in a row it is given up. Errors of this project (a broken space, a missing
package) concern the settings, so they are raised at once. Owned by one thread.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import EnvironmentAdapter, Observations, StepResult
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_common.errors import (
    FOREIGN_ERRORS,
    EnvironmentFailedError,
    ImpalaError,
    QueueClosedError,
    SpecMismatchError,
    UnknownEnvironmentError,
)
from impala_common.spec.specs import EnvironmentSpec

_LOG = logging.getLogger(__name__)
_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0
_MAX_WITHOUT_PROGRESS = 200


class UnrollAbandonedError(Exception):
    """The environment failed in the middle of an unroll: drop the unroll and `start` again."""


class RebuiltEnvironment:
    """All slots of an actor, made again when they fail.

    Attributes:
      spec: the environment's specification.
      num_slots: N.
      resets_at_once: whether results may have `final_observations`.
      num_failures: exceptions, and observations or rewards that were not finite.
    """

    def __init__(
        self,
        make: Callable[[], EnvironmentAdapter],
        stop: threading.Event | None = None,
        watchdog: EnvironmentWatchdog | None = None,
        max_failures: int = 5,
        env: str = "the environment",
    ) -> None:
        """Makes the slots for the first time.

        Args:
          make: makes all slots.
          stop: ends pauses; None: nothing does.
          watchdog: entered for every call, owned by the caller; None: calls have no time limit.
          max_failures: failures without a good step between them after which it is given up.
          env: its id, for messages.

        Raises:
          UnknownEnvironmentError: its own code raised.
          ImpalaError: as `make` raises it.
        """
        self._make = make
        self._stop = stop or threading.Event()
        self._watchdog = watchdog or EnvironmentWatchdog(0.0)
        self._max_failures = max_failures
        self._num_since_step = 0
        self._num_since_progress = 0
        self.num_failures = 0
        try:
            with self._watchdog:
                self._adapter: EnvironmentAdapter | None = make()
        except ImpalaError:
            raise
        except FOREIGN_ERRORS as error:  # code of users may raise any error
            raise describe_failure(env, error) from error
        self.spec: EnvironmentSpec = self._adapter.spec
        self.num_slots = self._adapter.num_slots
        self.resets_at_once = self._adapter.resets_at_once

    def start(self, seed: int) -> Observations:
        """Starts an episode in every slot; makes the slots again while that fails.

        Args:
          seed: of the slots; after failures a seed derived from it.

        Raises:
          EnvironmentFailedError: it failed too often.
          SpecMismatchError: the new environment has another specification.
          QueueClosedError: the actor is stopping.
        """
        while True:
            try:
                with self._watchdog:
                    adapter = self._require_adapter()
                    observations = adapter.reset((seed + self.num_failures) % (1 << 31))
            except ImpalaError:
                raise
            except FOREIGN_ERRORS as error:
                self._fail(error, "reset")
            else:
                if all_finite(observations):
                    return observations
                self._fail(ValueError("an observation is not finite"), "reset")

    def step(self, actions: NDArray[np.generic]) -> StepResult:
        """Takes one step in every slot; see `EnvironmentAdapter.step`.

        Raises:
          UnrollAbandonedError: it failed; the slots are gone.
          EnvironmentFailedError: it failed too often.
        """
        adapter = self._adapter
        assert adapter is not None, "start comes first"
        try:
            with self._watchdog:
                result = adapter.step(actions)
        except ImpalaError:
            raise
        except FOREIGN_ERRORS as error:
            self._fail(error, "step")
            raise UnrollAbandonedError from error
        self._num_since_step = 0
        return result

    def abandon(self, what: str) -> None:
        """Counts an unroll that is not sent as a failure, and drops its slots.

        Raises:
          EnvironmentFailedError: it failed too often.
        """
        self._fail(ValueError(what), "step")

    def note_progress(self) -> None:
        """Notes that an unroll or an episode was completed."""
        self._num_since_progress = 0

    def close(self) -> None:
        """Frees the environment's resources."""
        if self._adapter is not None:
            adapter, self._adapter = self._adapter, None
            with self._watchdog:
                adapter.close()

    def _require_adapter(self) -> EnvironmentAdapter:
        if self._adapter is None:
            self._adapter = self._make()
            if self._adapter.spec != self.spec:
                raise SpecMismatchError("environment made anew", self.spec, self._adapter.spec)
        return self._adapter

    def _fail(self, error: BaseException, method: str) -> None:
        """Counts, closes, and waits before the next try.

        Raises:
          EnvironmentFailedError: it failed too often.
          QueueClosedError: the actor is stopping.
        """
        self.num_failures += 1
        self._num_since_step += 1
        self._num_since_progress += 1
        text = f"{method} of the environment raised {type(error).__name__}: {error}"
        with contextlib.suppress(*FOREIGN_ERRORS):  # closing a broken environment may fail, too
            self.close()
        self._adapter = None
        is_over = self._num_since_step >= self._max_failures
        if is_over or self._num_since_progress >= _MAX_WITHOUT_PROGRESS:
            number = self._num_since_step if is_over else self._num_since_progress
            times = f" ({number} failures in a row)" if number > 1 else ""
            raise EnvironmentFailedError(f"{text}{times}") from error
        pause_s = 0.0
        if self._num_since_step > 1:  # the first retry is immediate
            pause_s = min(_MAX_PAUSE_S, _PAUSE_S * math.pow(2, self._num_since_step - 2))
            pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        # Warn at the first and every tenth failure, and at each one without a good step before it.
        is_news = self.num_failures % 10 == 1 or self._num_since_step > 1
        _LOG.log(
            logging.WARNING if is_news else logging.DEBUG,
            "%s; all slots are made anew in %.1f s (failure %d)",
            text, pause_s, self.num_failures, exc_info=error if self.num_failures == 1 else None,
        )  # fmt: skip
        if self._stop.wait(pause_s):
            raise QueueClosedError("the actor is stopping")


def describe_failure(env: str, error: BaseException) -> UnknownEnvironmentError:
    """Returns the error for an environment whose own code raised while it was made."""
    text = " ".join(str(error).split())[:500]
    hint = ""
    if isinstance(error, TypeError) and "required" in text:
        hint = '; give its arguments with --env-kwargs, such as \'{"render_mode": "rgb_array"}\''
    elif "render_mode" in text:
        hint = '; give it with --env-kwargs \'{"render_mode": "rgb_array"}\''
    return UnknownEnvironmentError(f"{env} cannot be made: {type(error).__name__}: {text}{hint}")


def all_finite(leaves: Mapping[str, NDArray[Any]]) -> bool:
    """Returns whether all numbers of leaves with fractions are finite."""
    return all(leaf.dtype.kind != "f" or bool(np.isfinite(leaf).all()) for leaf in leaves.values())
