"""The unroll intake: one verdict for each message, and nothing is written twice.

No gRPC: messages are offered on an event loop of the test's own, and a learner's end
of the pipe takes full slots. Without room: test_intake_room.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import numpy as np
import pytest
from intake_kit import SPEC, VERSION, Front, make_message, rewards_of, run, settle

from impala_common.errors import LearnerUnavailableError
from impala_common.testing.unrolls import make_unrolls, pack_stacked
from impala_rl.v1 import unroll_pb2
from impala_server.front_end.data_plane.unroll_intake import Outcome, Verdict
from impala_server.storage.handoff import FreedSlot
from impala_server.storage.layout import ORIGIN, POLICY_VERSION


def test_offer_of_good_messages_writes_them_and_hands_full_batches_over() -> None:
    async def test(front: Front) -> None:
        assert await front.offer(1, num_unrolls=1) == Verdict(Outcome.ACCEPTED)
        assert front.full_slots() == []
        assert await front.offer(2, num_unrolls=2) == Verdict(Outcome.ACCEPTED)

        assert front.full_slots() == [0]
        assert front.intake.counts.accepted == 3
        rewards = front.views[0]["rewards"]
        np.testing.assert_array_equal(rewards[:, :1], rewards_of(1, 1))
        np.testing.assert_array_equal(rewards[:, 1], rewards_of(2)[:, 0])
        np.testing.assert_array_equal(front.views[1]["rewards"][:, 0], rewards_of(2)[:, 1])
        assert front.views[0][POLICY_VERSION].tolist() == [VERSION, VERSION]

    run(test)


def test_offer_of_a_number_taken_before_is_duplicate_and_not_written() -> None:
    async def test(front: Front) -> None:
        await front.offer(1)
        await front.offer(2, num_unrolls=1)
        before = bytes(front.memory)

        for sequence in (2, 1):
            assert await front.offer(sequence) == Verdict(Outcome.DUPLICATE)

        assert bytes(front.memory) == before
        assert front.intake.counts.duplicate == 4
        assert front.intake.counts.accepted == 3

    run(test)


def test_offer_of_one_message_on_two_streams_at_once_is_taken_once() -> None:
    """Seen to fail without the second look at the number, behind the lock."""

    async def test(front: Front) -> None:
        await front.offer(1, num_unrolls=4)
        twins = [asyncio.create_task(front.offer(2)) for _ in range(2)]
        await settle(*twins)

        front.intake.release(FreedSlot(0, True))
        front.intake.release(FreedSlot(1, True))

        outcomes = [(await twin).outcome for twin in twins]
        assert sorted(outcomes, key=str) == [Outcome.ACCEPTED, Outcome.DUPLICATE]
        assert front.intake.counts.accepted == 6

    run(test)


@pytest.mark.parametrize("sequence", [0, -1, -(2**63)])
def test_offer_of_a_number_below_one_is_invalid(sequence: int) -> None:
    async def test(front: Front) -> None:
        verdict = await front.offer(sequence)

        assert verdict.outcome == Outcome.INVALID
        assert verdict.text == f"sequence_number: expected at least 1, got {sequence}"

    run(test)


def test_offer_of_unrolls_that_lag_too_far_is_stale_and_its_number_is_used_up() -> None:
    async def test(front: Front) -> None:
        stale = await front.intake.offer(front.session, make_message(1, policy_version=6))
        again = await front.intake.offer(front.session, make_message(1, policy_version=10))
        just = await front.intake.offer(front.session, make_message(2, policy_version=7))

        assert stale == Verdict(Outcome.STALE, "lags 4 updates behind, more than 3")
        assert again.outcome == Outcome.DUPLICATE
        assert just.outcome == Outcome.ACCEPTED
        assert front.intake.counts.stale == 2

    run(test, max_policy_lag=3)


def test_offer_without_lag_limit_takes_the_oldest_weights() -> None:
    async def test(front: Front) -> None:
        verdict = await front.intake.offer(front.session, make_message(1, policy_version=0))

        assert verdict.outcome == Outcome.ACCEPTED

    run(test, max_policy_lag=0)


@pytest.mark.parametrize("version", [-1, VERSION + 1, 2**62])
def test_offer_of_unrolls_from_weights_that_never_were_is_invalid(version: int) -> None:
    async def test(front: Front) -> None:
        message = make_message(1, policy_version=version)
        verdict = await front.intake.offer(front.session, message)

        assert verdict == Verdict(
            Outcome.INVALID, f"policy_version: expected 0 to {VERSION}, got {version}"
        )

    run(test)


@pytest.mark.parametrize("corrupt", ["digest", "nan", "shape"])
def test_offer_of_invalid_unrolls_leaves_storage_untouched(corrupt: str) -> None:
    async def test(front: Front) -> None:
        await front.offer(1, num_unrolls=1)
        before = bytes(front.memory)
        unrolls = make_unrolls(SPEC, 2, seed=2)
        if corrupt == "nan":
            unrolls["rewards"][0, 0] = math.nan
        message = pack_stacked(unrolls, SPEC, compress=False)
        message.sequence_number, message.policy_version = 2, VERSION
        if corrupt == "digest":
            message.digest ^= 1
        if corrupt == "shape":
            message.unroll_count = 1

        verdict = await front.intake.offer(front.session, message)

        assert verdict.outcome == Outcome.INVALID
        assert verdict.text
        assert bytes(front.memory) == before
        assert front.full_slots() == []
        assert front.intake.counts.invalid == message.unroll_count
        assert front.session.last_sequence == 1
        assert (await front.offer(2)).outcome == Outcome.ACCEPTED  # the number was not used up

    run(test)


def test_offer_now_with_room_does_what_offer_does() -> None:
    """Two doors, the same messages through each: verdicts, storage and counts are equal."""

    async def test(front: Front) -> None:
        other = Front()
        try:
            corrupt = make_message(3)
            corrupt.digest += 1
            future = make_message(3, policy_version=VERSION + 1)
            messages = [make_message(1, 1), make_message(1, 1), corrupt, future]
            messages += [make_message(0), make_message(3, 2)]
            for message in messages:
                verdict = front.intake.offer_now(front.session, message)
                assert verdict == await other.intake.offer(other.session, message)

            assert front.intake.counts == other.intake.counts
            assert front.intake.counts.accepted == 3
            assert front.full_slots() == other.full_slots() == [0]
            assert bytes(front.memory) == bytes(other.memory)
            assert front.session.last_sequence == other.session.last_sequence == 3
        finally:
            other.close()

    run(test)


def test_offer_now_while_others_have_their_turn_does_not_overtake_them() -> None:
    """Seen to fail without the look at tasks under way."""

    async def test(front: Front) -> None:
        before = front.intake.start(front.session, make_message(1, 1))
        other = front.register("b")

        assert front.intake.offer_now(other, make_message(1, 1)) is None

        assert (await before).outcome == Outcome.ACCEPTED
        await asyncio.sleep(0)  # the task is struck off the list
        assert front.intake.offer_now(other, make_message(1, 1)) == Verdict(Outcome.ACCEPTED)

    run(test)


def test_offer_when_the_learner_is_gone_says_so() -> None:
    async def test(front: Front) -> None:
        front.learner.close()

        with pytest.raises(LearnerUnavailableError, match="gone"):
            await front.offer(1)

    run(test)


def _set_return(message: unroll_pb2.UnrollBatch, value: float) -> None:
    message.episodes.add(episode_return=1.0)
    message.episodes.add(episode_return=value)


BEYOND: dict[str, Callable[[unroll_pb2.UnrollBatch], object]] = {
    "unroll_count": lambda message: setattr(message, "unroll_count", 2**31 - 1),
    "unroll_count below": lambda message: setattr(message, "unroll_count", -(2**31)),
    "episodes.episode_return": lambda message: _set_return(message, 1e308),
    "episodes.episode_return nan": lambda message: _set_return(message, math.nan),
    "episodes.step_count": lambda message: message.episodes.add(step_count=2**63 - 1),
    "environment_failure_count": lambda message: setattr(
        message, "environment_failure_count", 1 << 20
    ),
    "times.inference_s": lambda message: setattr(message.times, "inference_s", math.nan),
    "times.blocked_s": lambda message: setattr(message.times, "blocked_s", 1e30),
}


@pytest.mark.parametrize("what", BEYOND)
def test_offer_with_a_number_beyond_its_bound_is_invalid_and_counts_once(what: str) -> None:
    """Seen to fail: 65,536 unrolls were counted, 2**20 failures, and a mean was lost."""

    async def test(front: Front) -> None:
        message = make_message(1, num_unrolls=1)
        BEYOND[what](message)
        verdict = await front.intake.offer(front.session, message)
        await front.offer(1)

        assert verdict.outcome is Outcome.INVALID
        assert verdict.text.startswith(f"{what.partition(' ')[0]}: expected")
        assert front.intake.counts.invalid == 1
        assert front.intake.counts.environment_failures == 0
        full = front.learner.receive_full(0.0)
        assert full is not None
        assert (full.episodes, full.actor_seconds) == ([], (0.0, 0.0, 0.0))

    run(test)


def test_offer_hands_episodes_and_times_over() -> None:
    async def test(front: Front) -> None:
        message = make_message(1, num_unrolls=1)
        message.episodes.add(episode_return=1.5, step_count=7)
        message.times.environment_s = 0.25
        await front.intake.offer(front.session, message)
        other = make_message(2, num_unrolls=3)
        other.episodes.extend([unroll_pb2.EpisodeSummary(step_count=k) for k in range(2000)])
        other.times.environment_s = 0.5
        await front.intake.offer(front.session, other)

        first, second = front.learner.receive_full(0.0), front.learner.receive_full(0.0)
        assert first is not None
        assert second is not None
        assert first.episodes[0] == (1.5, 7)
        assert len(first.episodes) == 512
        assert first.actor_seconds == (0.75, 0.0, 0.0)
        assert second.episodes == []
        assert second.actor_seconds == (0.0, 0.0, 0.0)

    run(test)


def test_offer_of_a_sequence_number_beyond_32_bits_is_taken() -> None:
    """Seen to fail with a column of int32 for the sequence number."""

    async def body(front: Front) -> None:
        for n, sequence in enumerate((2**32 - 1, 2**32, 2**63 - 1)):
            assert (await front.offer(sequence, 1)).outcome is Outcome.ACCEPTED
            assert front.views[n // 2][ORIGIN][n % 2, 2] == sequence
        assert (await front.offer(2**63 - 1)).outcome is Outcome.DUPLICATE

    run(body)
