"""Outbox: complete unrolls and finished episodes on their way to the learner.

Filled by the policy engine on the event loop, emptied by the thread of the learner's session.
Bounded by the engine, which decides nothing while `has_room` is False: as an ordinary actor, a slot
begins no unroll while as many of its unrolls as the window allows are unanswered. The learner would
train any further ones later, when the weights that chose their actions are older.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from impala_actor.environments.episode_statistics import EpisodeRecord
from impala_policy_server.slot_unrolls import CompleteUnrolls

MAX_EPISODES = 4096
"""Most episodes kept for the next message; further ones are not reported."""


class Load(NamedTuple):
    """What one message to the learner holds.

    Attributes:
      parts: unrolls, at least one.
      episodes: finished since the last message.
      inference_s: spent on decisions since the last message.
    """

    parts: list[CompleteUnrolls]
    episodes: list[EpisodeRecord]
    inference_s: float


class Outbox:
    """Unrolls in the order of their completion.

    Attributes:
      window: messages of an ordinary actor that may be unanswered; the learner says how many.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        """Calls `on_room`, from other threads, each time the learner has answered unrolls."""
        self.window = 1
        self._on_room = on_room
        self._changed = threading.Condition()
        self._parts: list[CompleteUnrolls] = []
        self._episodes: list[EpisodeRecord] = []
        self._inference_s = 0.0
        self._num_unrolls = 0
        self._num_unanswered = 0

    @property
    def num_unrolls(self) -> int:
        """Unrolls that wait here."""
        return self._num_unrolls

    def has_room(self, num_slots: int) -> bool:
        """Returns whether fewer than `window` unrolls of each slot wait here or are unanswered."""
        with self._changed:
            num_pending = self._num_unrolls + self._num_unanswered
        return num_pending < max(num_slots, 1) * self.window

    def put(self, complete: CompleteUnrolls) -> None:
        """Adds unrolls."""
        with self._changed:
            self._parts.append(complete)
            self._num_unrolls += complete.unrolls.num_unrolls
            self._changed.notify_all()

    def add_episodes(self, episodes: Iterable[EpisodeRecord]) -> None:
        """Adds finished episodes."""
        with self._changed:
            self._episodes.extend(episodes)
            del self._episodes[MAX_EPISODES:]

    def add_inference_time(self, inference_s: float) -> None:
        """Adds time spent on decisions."""
        with self._changed:
            self._inference_s += inference_s

    def wait(self, timeout_s: float) -> bool:
        """Waits for unrolls; returns whether there are any."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._parts), timeout_s)

    def take(self, max_unrolls: int) -> Load:
        """Returns what waits, at most `max_unrolls`; `wait` has said that there is something."""
        with self._changed:
            parts = [self._parts.pop(0)]
            num_unrolls = parts[0].unrolls.num_unrolls
            while self._parts and num_unrolls + self._parts[0].unrolls.num_unrolls <= max_unrolls:
                parts.append(self._parts.pop(0))
                num_unrolls += parts[-1].unrolls.num_unrolls
            self._num_unrolls -= num_unrolls
            self._num_unanswered += num_unrolls
            load = Load(parts, self._episodes, self._inference_s)
            self._episodes, self._inference_s = [], 0.0
        return load

    def note_answered(self, num_unrolls: int) -> None:
        """Notes that the learner has answered so many of the unrolls that were taken."""
        with self._changed:
            self._num_unanswered = max(0, self._num_unanswered - num_unrolls)
        self._on_room()

    def clear(self) -> None:
        """Drops everything: it belongs to a session that is over."""
        with self._changed:
            self._parts.clear()
            self._episodes.clear()
            self._num_unrolls, self._inference_s = 0, 0.0
            self._num_unanswered = 0
        self._on_room()
