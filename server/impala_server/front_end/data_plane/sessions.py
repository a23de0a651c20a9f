"""SessionTable: actors and their sessions.

Owned by the front end's event loop. A session is one life of one actor; the
newest registered life of an actor_id fences the older ones.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import statistics
from collections import OrderedDict

import numpy as np

from impala_common.errors import (
    BannedError,
    CapacityError,
    InvalidRequestError,
    NotFoundError,
    StaleSessionError,
)
from impala_common.process.logs import printable
from impala_server.front_end.data_plane.actor_activity import ActorActivity

_LOG = logging.getLogger(__name__)
_ACTOR_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_BANS = 4096
MAX_ABSURD = 3.0
"""Value of `ActorSession.absurd` at which an actor is quarantined."""
_FORGIVEN = 1 / 16


@dataclasses.dataclass(slots=True)
class ActorSession:
    """One life of one actor."""

    actor_id: str
    actor_run_id: int
    epoch: int
    index: int
    num_environment_slots: int
    host: str
    last_sequence: int = 0
    num_streams: int = 0
    over: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set when an administrator ended the session; `over_text` says why."""
    over_text: str = ""
    max_abs_return: float | None = None
    """Largest absolute return of an episode in its accepted messages; None before the first."""
    absurd: float = 0.0
    """Messages with numbers out of bounds, less one for every 16 accepted messages; at least 0."""
    activity: ActorActivity = dataclasses.field(default_factory=ActorActivity)

    def note(self, outcome: str, num_unrolls: int, num_steps: int, policy_lag: int) -> None:
        """Counts one message, by the name of its verdict."""
        if outcome == "accepted":
            self.absurd = max(0.0, self.absurd - _FORGIVEN)
        self.activity.note(outcome, num_unrolls, num_steps, policy_lag)


class SessionTable:
    """All actors of this learner life; keeps at most four times `max_actors` of them."""

    def __init__(self, max_actors: int, run_seed: int, learner_life: int) -> None:
        """Starts with no actors.

        Args:
          max_actors: actors with an open stream at a time.
          run_seed: the run's seed.
          learner_life: how often the run's learner was started before.
        """
        self._max_actors = max_actors
        self._seed = (run_seed, learner_life)
        self._sessions: OrderedDict[str, ActorSession] = OrderedDict()
        self._next_index = 0
        self._banned: set[str] = set()
        self._quarantined: dict[str, str] = {}

    @property
    def all(self) -> list[ActorSession]:
        """The newest session of every actor in the table: connected ones first, then by index."""
        return sorted(self._sessions.values(), key=lambda one: (one.num_streams == 0, one.index))

    @property
    def banned(self) -> list[str]:
        """Names that may not register, in order."""
        return sorted(self._banned)

    @property
    def num_connected(self) -> int:
        """Actors with an open stream."""
        return sum(session.num_streams > 0 for session in self._sessions.values())

    def register(
        self, actor_id: str, actor_run_id: int, num_environment_slots: int, host: str
    ) -> ActorSession:
        """Opens a session for this life of the actor and fences its older ones.

        Raises:
          InvalidRequestError: the name is not allowed.
          BannedError: an administrator has banned it, or it is quarantined.
          CapacityError: max_actors others are connected.
        """
        validate_actor_id(actor_id)
        if actor_id in self._banned:
            text = self._quarantined.get(actor_id)
            raise BannedError(
                f"an administrator has banned actor {actor_id} from this run"
                if text is None
                else f"actor {actor_id} is quarantined for its numbers: {text}. Mend its "
                f"environment, then `impala-admin unban {actor_id}`"
            )
        old = self._sessions.get(actor_id)
        is_counted = old is not None and old.num_streams > 0
        if self.num_connected - is_counted >= self._max_actors:
            raise CapacityError(f"{self._max_actors} actors (max_actors) are connected already")
        self._sessions.pop(actor_id, None)
        if old is None:
            self._forget_one_if_full()
            index, epoch = self._next_index, 1
            self._next_index += 1
        else:
            index, epoch = old.index, old.epoch + 1
        session = ActorSession(actor_id, actor_run_id, epoch, index, num_environment_slots, host)
        session.max_abs_return = None if old is None else old.max_abs_return
        self._sessions[actor_id] = session
        return session

    def find(self, actor_id: str, actor_run_id: int, epoch: int) -> ActorSession:
        """Returns the session of this life.

        Raises:
          StaleSessionError: it is not the newest life of this actor.
        """
        session = self._sessions.get(actor_id)
        if session is None or session.actor_run_id != actor_run_id or session.epoch != epoch:
            raise StaleSessionError("this session is over: register again")
        return session

    def evict(self, actor_id: str, text: str, is_ban: bool = False) -> bool:
        """Ends an actor's session, bans it if `is_ban`; returns whether it was connected.

        Raises:
          InvalidRequestError: no actor can have this name.
          NotFoundError: no actor has this name. (A name without an actor may still be banned.)
          CapacityError: too many are banned.
        """
        validate_actor_id(actor_id)
        session = self._sessions.get(actor_id)
        if session is None and not is_ban:
            raise NotFoundError(
                f"no actor {actor_id!r}; there are: {', '.join(self._sessions) or 'none'}"
            )
        if is_ban:
            if len(self._banned) >= _MAX_BANS and actor_id not in self._banned:
                raise CapacityError(f"{_MAX_BANS} actors are banned already")
            self._banned.add(actor_id)
        if session is None:
            return False
        was_connected = session.num_streams > 0
        what = "banned" if is_ban else "sent away"
        session.over_text = f"{what} by an administrator" + (f": {text}" if text else "")
        self._end(session)
        return was_connected

    @property
    def believable_return(self) -> float | None:
        """The median over actors of their largest absolute return; None before the first episode.

        A median, so that one actor cannot make false returns believable.
        """
        largest = [
            s.max_abs_return for s in self._sessions.values() if s.max_abs_return is not None
        ]
        return statistics.median_low(largest) if largest else None

    @property
    def quarantined(self) -> dict[str, str]:
        """Actors banned for numbers out of bounds: name -> the last such number, in words."""
        return dict(self._quarantined)

    def note_absurd(self, session: ActorSession, text: str) -> None:
        """Counts a message with numbers out of bounds; bans its actor when it sent too many.

        The message itself was refused, so nothing of it was trained on.
        """
        session.absurd += 1.0
        if session.absurd < MAX_ABSURD or session.over.is_set():
            return
        if len(self._banned) >= _MAX_BANS:
            _LOG.error("%d actors are banned already: %s is not", _MAX_BANS, session.actor_id)
            return
        self._banned.add(session.actor_id)
        self._quarantined[session.actor_id] = text
        session.over_text = f"quarantined: {text}"
        self._end(session)
        _LOG.error(
            "actor %s is quarantined: %s. The run goes on without it; `impala-admin unban %s` "
            "lets it return", session.actor_id, text, session.actor_id,
        )  # fmt: skip

    def _end(self, session: ActorSession) -> None:
        session.over.set()
        session.epoch += 1  # later messages of this session count as an older session's

    def unban(self, actor_id: str) -> None:
        """Lifts a ban; raises NotFoundError if the actor is not banned."""
        if actor_id not in self._banned:
            raise NotFoundError(
                f"actor '{printable(actor_id, 64)}' is not banned; "
                f"banned: {', '.join(self.banned) or 'none'}"
            )
        self._banned.remove(actor_id)
        self._quarantined.pop(actor_id, None)

    def seed_of(self, session: ActorSession) -> int:
        """Returns the seed of a session, in [0, 2**63)."""
        sequence = np.random.SeedSequence([*self._seed, session.index, session.epoch])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _forget_one_if_full(self) -> None:
        if len(self._sessions) < 4 * self._max_actors:
            return
        for actor_id, session in self._sessions.items():
            if session.num_streams == 0:
                del self._sessions[actor_id]
                return


def validate_actor_id(actor_id: str) -> None:
    """Raises InvalidRequestError unless an actor may have this name."""
    if not _ACTOR_ID.fullmatch(actor_id):
        raise InvalidRequestError(
            f"actor_id {actor_id[:64]!r}: expected 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
