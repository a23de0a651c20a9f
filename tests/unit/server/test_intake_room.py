"""The unroll intake without room in storage: order and limits of waiting messages.

No gRPC: messages are offered on an event loop of the test's own, and a learner's end
of the pipe takes full slots. Waits are for events, with a deadline.
"""

from __future__ import annotations

import asyncio

import numpy as np
from intake_kit import Front, make_message, rewards_of, run, settle

from impala_server.front_end.data_plane.unroll_intake import Balance, Outcome, Verdict
from impala_server.storage.handoff import FreedSlot


def test_offer_while_storage_is_full_waits_until_release() -> None:
    async def test(front: Front) -> None:
        await front.offer(1, num_unrolls=4)
        assert front.full_slots() == [0, 1]
        waiting = asyncio.create_task(front.offer(2))
        await settle(waiting)

        front.intake.release(FreedSlot(1, True))

        assert (await waiting).outcome == Outcome.ACCEPTED
        assert front.full_slots() == [1]
        np.testing.assert_array_equal(front.views[1]["rewards"], rewards_of(2))

    run(test)


def test_offer_of_several_while_full_gives_each_one_verdict_in_order() -> None:
    async def test(front: Front) -> None:
        await front.offer(1, num_unrolls=4)
        others = [front.register(f"other-{k}") for k in range(3)]
        tasks = [
            asyncio.create_task(front.offer(k + 1, session=session))
            for k, session in enumerate(others)
        ]
        await settle(*tasks)

        order = []
        for slot in (0, 1, 0):
            front.intake.release(FreedSlot(slot, True))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            task = done.pop()
            assert task.result().outcome == Outcome.ACCEPTED
            order.append(task)
            tasks.remove(task)

        assert not tasks
        assert front.full_slots() == [0, 1, 0, 1, 0]
        assert len(set(order)) == 3

    run(test)


def test_offer_of_a_message_larger_than_storage_goes_on_as_slots_are_released() -> None:
    async def test(front: Front) -> None:
        task = asyncio.create_task(front.offer(1, num_unrolls=10))
        wanted, seen = rewards_of(1, 10), []
        while len(seen) < 5:
            await asyncio.sleep(0)
            for slot in front.full_slots():
                seen.append(front.views[slot]["rewards"].copy())
                front.intake.release(FreedSlot(slot, True))

        assert (await task) == Verdict(Outcome.ACCEPTED)
        np.testing.assert_array_equal(np.concatenate(seen, axis=1), wanted)

    run(test)


def test_offer_without_room_in_time_is_capacity_and_can_be_sent_again_under_a_new_number() -> None:
    async def test(front: Front) -> None:
        await front.offer(1, num_unrolls=4)

        refused = await front.offer(2)
        assert refused == Verdict(Outcome.CAPACITY, "no room in rollout storage for 0.05 s")
        assert front.intake.counts.capacity == 2
        front.intake.release(FreedSlot(0, True))
        front.intake.release(FreedSlot(1, True))
        assert (await front.offer(3)).outcome == Outcome.ACCEPTED  # sent before 2 was refused

        assert (await front.offer(2)).outcome == Outcome.DUPLICATE  # why the old number will not do
        assert (await front.offer(4)).outcome == Outcome.ACCEPTED

    run(test, capacity_timeout_s=0.05)


def test_offer_of_many_without_room_refuses_all_after_one_timeout() -> None:
    """Seen to fail (30 x .2 s) when the time in front of the door did not count."""

    async def test(front: Front) -> None:
        await front.offer(1, num_unrolls=4)
        loop = asyncio.get_running_loop()
        start_s = loop.time()

        sessions = [front.register(f"b{k}") for k in range(30)]
        verdicts = await asyncio.gather(*(front.offer(1, session=one) for one in sessions))

        assert {verdict.outcome for verdict in verdicts} == {Outcome.CAPACITY}
        assert loop.time() - start_s < 3.0

    run(test, capacity_timeout_s=0.2)


def test_offer_that_has_begun_to_write_is_finished_after_any_time() -> None:
    """Its second half waits longer than capacity_timeout_s; half a message must not stay."""

    async def test(front: Front) -> None:
        large = asyncio.create_task(front.offer(1, num_unrolls=6))
        await settle(large)
        other = front.register("b")
        refused = await front.offer(1, session=other)
        assert refused.outcome == Outcome.CAPACITY
        assert not large.done()

        front.intake.release(FreedSlot(0, True))

        assert (await large).outcome == Outcome.ACCEPTED
        np.testing.assert_array_equal(front.views[0]["rewards"], rewards_of(1, 6)[:, 4:])

    run(test, capacity_timeout_s=0.05)


def test_offer_now_without_room_for_all_of_it_touches_nothing() -> None:
    async def test(front: Front) -> None:
        await front.offer(1, num_unrolls=3)
        before = bytes(front.memory)

        assert front.intake.offer_now(front.session, make_message(2, 2)) is None

        assert bytes(front.memory) == before
        assert front.session.last_sequence == 1
        assert front.intake.counts.accepted == 3

    run(test)


def test_start_of_a_message_whose_stream_dies_is_finished() -> None:
    async def test(front: Front) -> None:
        offered = front.intake.start(front.session, make_message(1, 6))
        stream = asyncio.create_task(asyncio.wait({offered}))
        await settle(offered)

        stream.cancel()
        front.intake.release(FreedSlot(0, True))

        assert (await offered).outcome == Outcome.ACCEPTED
        assert front.full_slots() == [0, 1, 0]

    run(test)


def test_balance_at_all_times_is_what_was_accepted() -> None:
    """Seen to fail with accepted counted per message, at its verdict: one was half written."""

    async def body(front: Front) -> None:
        intake = front.intake
        assert intake.balance == Balance(0, 0, 0, 0)
        await front.offer(1, 1)
        assert intake.balance == Balance(1, 0, 0, 1)
        await front.offer(2, 2)
        waiting = intake.start(front.session, make_message(3, 4))
        await settle(waiting)
        assert intake.balance == Balance(4, 0, 0, 4), "half of a message is in full storage"
        intake.release(FreedSlot(0, True))
        await settle(waiting)
        assert intake.balance == Balance(6, 2, 0, 4)
        intake.release(FreedSlot(1, False))
        assert (await waiting).outcome is Outcome.ACCEPTED
        assert intake.balance == Balance(7, 2, 2, 3)
        await front.offer(2, 2)
        assert intake.balance.num_missing == 0, "a duplicate changes nothing"

    run(body)
