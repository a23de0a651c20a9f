"""The same request id: the same answer, one effect, for ten minutes and in bounded space."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from impala_common.errors import CapacityError, InvalidRequestError, LearnerUnavailableError
from impala_server.front_end.admin.request_cache import KEEP_S, RequestCache


class Effects:
    """Counts how often a change was made."""

    def __init__(self) -> None:
        self.number = 0
        self.gate: asyncio.Event | None = None

    async def change(self) -> int:
        self.number += 1
        if self.gate is not None:
            await self.gate.wait()
        return self.number


def run(test: Callable[[RequestCache, Effects, list[float]], Coroutine[Any, Any, None]]) -> None:
    now_s = [0.0]
    asyncio.run(test(RequestCache(lambda: now_s[0], capacity=3), Effects(), now_s))


def test_same_id_has_one_effect_until_ten_minutes_are_over() -> None:
    async def test(cache: RequestCache, effects: Effects, now_s: list[float]) -> None:
        for _ in range(3):
            assert await cache.once("a", b"x", effects.change, 1.0) == 1
        now_s[0] = KEEP_S - 1
        assert await cache.once("a", b"x", effects.change, 1.0) == 1
        now_s[0] = KEEP_S
        assert await cache.once("a", b"x", effects.change, 1.0) == 2

    run(test)


def test_same_id_for_something_else_is_refused() -> None:
    async def test(cache: RequestCache, effects: Effects, unused: list[float]) -> None:
        await cache.once("a", b"x", effects.change, 1.0)
        with pytest.raises(InvalidRequestError, match="used for another request"):
            await cache.once("a", b"y", effects.change, 1.0)
        assert effects.number == 1

    run(test)


def test_refusal_is_remembered_too() -> None:
    async def test(cache: RequestCache, unused_effects: Effects, unused: list[float]) -> None:
        tries = []

        async def refuse() -> None:
            tries.append(1)
            raise CapacityError("no room")

        for _ in range(2):
            with pytest.raises(CapacityError, match="no room"):
                await cache.once("a", b"x", refuse, 1.0)
        assert len(tries) == 1

    run(test)


def test_change_that_takes_long_goes_on_and_is_found_again() -> None:
    """Seen to fail without the shield: the first client's deadline stopped the change."""

    async def test(cache: RequestCache, effects: Effects, unused: list[float]) -> None:
        effects.gate = asyncio.Event()
        with pytest.raises(LearnerUnavailableError, match="ask again with request_id a"):
            await cache.once("a", b"x", effects.change, 0.01)
        waiting = [
            asyncio.ensure_future(cache.once("a", b"x", effects.change, 5.0)) for _ in range(8)
        ]
        effects.gate.set()
        assert await asyncio.gather(*waiting) == [1] * 8

    run(test)


def test_more_changes_than_it_remembers_are_refused_not_forgotten() -> None:
    async def test(cache: RequestCache, effects: Effects, now_s: list[float]) -> None:
        for name in "abc":
            await cache.once(name, b"x", effects.change, 1.0)
        with pytest.raises(CapacityError, match="3 changes"):
            await cache.once("d", b"x", effects.change, 1.0)
        assert await cache.once("a", b"x", effects.change, 1.0) == 1
        now_s[0] = KEEP_S
        assert await cache.once("d", b"x", effects.change, 1.0) == 4

    run(test)


@pytest.mark.parametrize("request_id", ["", " ", "-a", "a/b", "a\n", "x" * 65, "é"])
def test_what_is_no_request_id_is_refused(request_id: str) -> None:
    async def test(cache: RequestCache, effects: Effects, unused: list[float]) -> None:
        with pytest.raises(InvalidRequestError, match="request_id"):
            await cache.once(request_id, b"x", effects.change, 1.0)
        assert effects.number == 0

    run(test)
