"""LearnerCalls: each question gets its answer, and one that nobody waits for is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from impala_common.errors import (
    CapacityError,
    InvalidRequestError,
    LearnerUnavailableError,
    NotFoundError,
)
from impala_server.front_end import learner_calls
from impala_server.front_end.learner_calls import LearnerCalls
from impala_server.messages import Answer, Call, CallFailed, Json, WithdrawCall

LIMIT_S = 20.0


class Asked:
    """Calls, and what the learner was sent."""

    def __init__(self) -> None:
        self.sent: list[Call | WithdrawCall] = []
        self.calls = LearnerCalls(self.sent.append)

    async def ask(self, command: str = "pause") -> asyncio.Task[Json]:
        task = asyncio.create_task(self.calls.call(command))
        await asyncio.sleep(0)
        return task

    async def leave(self, tasks: list[asyncio.Task[Json]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(test: Callable[[Asked], Awaitable[None]]) -> None:
    async def body() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test(Asked())

    asyncio.run(body())


def test_answers_find_their_questions() -> None:
    async def test(asked: Asked) -> None:
        one, two = [await asked.ask(name) for name in ("pause", "resume")]
        asked.calls.answer(CallFailed(2, "NOT_FOUND", "no such thing"))
        asked.calls.answer(Answer(1, "PAUSED", {"x": 1}))

        assert await one == {"x": 1}
        with pytest.raises(NotFoundError, match="no such thing"):
            await two
        assert asked.sent == [Call(1, "pause", {}), Call(2, "resume", {})]
        assert asked.calls.num_pending == 0

    run(test)


def test_questions_that_were_left_are_withdrawn_and_count_no_more() -> None:
    """A learner that does not answer is sent no more than 64 questions and their withdrawals.

    Seen to fail without the bound on what is sent: 1,000 calls were on their way.
    """

    async def test(asked: Asked) -> None:
        for _ in range(20):
            await asked.leave([await asked.ask("report_evaluation") for _ in range(50)])
            assert asked.calls.num_pending == 0
        calls = [one for one in asked.sent if isinstance(one, Call)]
        assert len(calls) == 64
        assert asked.sent[50:100] == [WithdrawCall(number) for number in range(1, 51)]
        assert len(asked.sent) == 128

        late = await asked.ask("resume")
        for call in calls:  # the learner goes on
            asked.calls.answer(CallFailed(call.call_id, "LEARNER_UNAVAILABLE", "withdrawn"))
        newest = asked.sent[-1]
        assert isinstance(newest, Call)
        assert newest.command == "resume"
        asked.calls.answer(Answer(newest.call_id, "RUNNING", {}))
        assert await late == {}

    run(test)


def test_question_without_an_answer_in_time_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_calls, "_TIMEOUT_S", 0.01)

    async def test(asked: Asked) -> None:
        with pytest.raises(LearnerUnavailableError, match="has not answered pause"):
            await asked.calls.call("pause")
        assert asked.sent == [Call(1, "pause", {}), WithdrawCall(1)]
        asked.calls.answer(Answer(1, "PAUSED", {}))  # nobody waits for it: no error

    run(test)


def test_too_many_questions_at_a_time_are_refused() -> None:
    async def test(asked: Asked) -> None:
        tasks = [await asked.ask() for _ in range(64)]
        with pytest.raises(CapacityError, match="64 commands"):
            await asked.calls.call("pause")
        await asked.leave(tasks)

    run(test)


def test_question_with_too_long_arguments_is_refused_and_not_sent() -> None:
    async def test(asked: Asked) -> None:
        with pytest.raises(InvalidRequestError, match="set: expected at most 65536 bytes"):
            await asked.calls.call("set", name="x", value="1" * 70_000)
        assert not asked.sent
        assert asked.calls.num_pending == 0

    run(test)


def test_lost_learner_fails_all_questions_and_later_ones() -> None:
    async def test(asked: Asked) -> None:
        task = await asked.ask()
        asked.calls.lose()
        with pytest.raises(LearnerUnavailableError, match="has ended"):
            await task
        with pytest.raises(LearnerUnavailableError, match="is gone"):
            await asked.calls.call("pause")
        assert asked.sent == [Call(1, "pause", {})]

    run(test)
