"""TransferSlots: limits simultaneous weights transfers."""

from __future__ import annotations

import asyncio

import pytest

from impala_common.errors import LearnerUnavailableError
from impala_server.front_end.data_plane.transfer_slots import TransferSlots


@pytest.mark.parametrize(
    ("snapshot_bytes", "num_transfers"), [(0, 32), (1 << 20, 32), (16 << 20, 16), (1 << 30, 8)]
)
def test_large_snapshots_have_fewer_slots(snapshot_bytes: int, num_transfers: int) -> None:
    assert TransferSlots(snapshot_bytes).num_transfers == num_transfers


def test_who_finds_no_slot_in_time_is_told_to_try_again() -> None:
    async def test() -> None:
        slots = TransferSlots(1 << 30, wait_s=0.01)
        holders = [slots.take() for _ in range(slots.num_transfers)]
        for holder in holders:
            await holder.__aenter__()
        with pytest.raises(LearnerUnavailableError, match="8 others"):
            async with slots.take():
                raise AssertionError("no slot was free")
        await holders[0].__aexit__(None, None, None)
        async with slots.take():
            return

    asyncio.run(test())
