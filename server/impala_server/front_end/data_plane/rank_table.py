"""RankTable: which learner rank an actor is to go to.

Owned by the front end's event loop. The learner tells it about once a second where the ranks are
and how many actors each has. An actor goes to the rank with the fewest, and to the same one when it
comes back; without other ranks every actor stays.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from impala_server.messages import RanksNews

_MAX_KNOWN = 16384
_UNSEEN_S = 5.0  # until an actor that was sent to a rank counts among those that the rank reports


class RankTable:
    """The ranks, and the actors that were sent to them from here."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Knows of no other ranks."""
        self._clock = clock
        self._news = RanksNews(0, (), ())
        self._known: OrderedDict[str, int] = OrderedDict()  # the rank of an actor
        self._sent: list[tuple[float, int]] = []  # when an actor was sent where, oldest first

    def update(self, news: RanksNews) -> None:
        """Takes the newest addresses and loads."""
        if news.addresses != self._news.addresses:
            self._known.clear()  # other ranks than before
            self._sent.clear()
        self._news = news

    def choose(self, actor_id: str) -> str:
        """Returns the address of the rank for an actor; "" if it stays here."""
        addresses = self._news.addresses
        if len(addresses) < 2:
            return ""
        rank = self._known.get(actor_id)
        if rank is None:
            rank = self._find_least_loaded()
            self._sent.append((self._clock(), rank))
        self._known[actor_id] = rank
        self._known.move_to_end(actor_id)
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return "" if rank == self._news.own else addresses[rank]

    def _find_least_loaded(self) -> int:
        oldest_s = self._clock() - _UNSEEN_S
        self._sent = [one for one in self._sent if one[0] > oldest_s]
        loads = list(self._news.loads)
        for _, rank in self._sent:
            loads[rank] += 1
        return loads.index(min(loads))
