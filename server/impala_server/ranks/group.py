"""RankGroup: the meetings of all learner ranks, each with a time limit.

Wraps process groups of torch.distributed. Used by one thread at a time: by the controller until the
learner is built, then by the rank loop. A rank that fails leaves its reason in the store that all
ranks share, so that the others can tell it.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from impala_common.errors import RankLostError
from impala_common.process import failpoints

_LOG = logging.getLogger(__name__)
_dist: Any = dist  # Any: torch's stubs leave out stores and the methods of process groups
_REASON_S = 1.0
_STORE_S = 2.0
_MAX_REASON = 500


class RankGroup:
    """This rank's end of the group.

    Attributes:
      rank: this rank, from 0.
      num_ranks: ranks of the group.
      num_bytes: sent by this rank for gradients, without what the algorithm adds.
      seconds: spent in meetings, waiting for other ranks included.
      timeout_s: longest time that a meeting may take; then a rank counts as dead.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        num_ranks: int,
        timeout_s: float,
        has_nccl: bool = False,
    ) -> None:
        """Connects to all other ranks.

        Args:
          store: a store of torch.distributed, shared by the ranks.
          rank: this rank.
          num_ranks: ranks of the group.
          timeout_s: see the attribute, which may be changed between two meetings.
          has_nccl: whether tensors on CUDA are reduced by NCCL; else by gloo.

        Raises:
          RankLostError: not all ranks could be connected.
        """
        self.rank = rank
        self.num_ranks = num_ranks
        self.num_bytes = 0
        self.seconds = 0.0
        self._store = store
        self.timeout_s = timeout_s
        timeout = datetime.timedelta(seconds=timeout_s)
        try:
            gloo = _dist.PrefixStore("gloo", store)
            self._gloo = _dist.ProcessGroupGloo(gloo, rank, num_ranks, timeout)
            self._nccl = None
            if has_nccl:
                nccl = _dist.PrefixStore("nccl", store)
                options = _dist.ProcessGroupNCCL.Options()
                options._timeout = timeout
                self._nccl = _dist.ProcessGroupNCCL(nccl, rank, num_ranks, options)
        except RuntimeError as error:
            raise RankLostError(
                f"rank {rank} cannot connect to the other ranks: {error}"
            ) from error

    def add_up(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor by its sum over all ranks; returns it. The same bits on every rank."""
        group = self._nccl if self._nccl is not None and tensor.is_cuda else self._gloo
        failpoints.hit("ranks.before_meeting")
        start_s = time.perf_counter()
        options = _dist.AllreduceOptions()
        options.timeout = datetime.timedelta(seconds=self.timeout_s)
        try:
            group.allreduce([tensor], options).wait()
        except RuntimeError as error:
            raise self._lost(error) from error
        self.seconds += time.perf_counter() - start_s
        return tensor

    def gather(self, row: Tensor) -> Tensor:
        """Returns a tensor [N, ...] of what each rank passed: all of one dtype and shape."""
        rows = torch.zeros((self.num_ranks, *row.shape), dtype=row.dtype, device=row.device)
        rows[self.rank] = row
        return self.add_up(rows)

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Returns the bytes that each rank passed, of any lengths."""
        lengths = self.gather(torch.tensor(len(data))).tolist()
        row = torch.zeros(max(lengths), dtype=torch.uint8)
        row[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
        rows = self.gather(row)
        return [rows[rank, :length].numpy().tobytes() for rank, length in enumerate(lengths)]

    def broadcast(self, data: bytes, source: int = 0) -> bytes:
        """Returns the bytes that rank `source` passed; those of the others are ignored."""
        length = torch.tensor(len(data) if self.rank == source else 0)
        self.add_up(length)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == source and data:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        options = _dist.BroadcastOptions()
        options.rootRank = source
        options.timeout = datetime.timedelta(seconds=self.timeout_s)
        try:
            if len(content):
                self._gloo.broadcast([content], options).wait()
        except RuntimeError as error:
            raise self._lost(error) from error
        return content.numpy().tobytes()

    def leave_reason(self, text: str) -> None:
        """Tells the other ranks why this one ends; they read it when they miss this rank."""
        self._use_store(lambda: self._store.set(f"reason/{self.rank}", text[:_MAX_REASON]))

    def _lost(self, error: RuntimeError) -> RankLostError:
        """Returns the error of a meeting that failed, with the reason of a rank that left one."""
        reasons: list[str] = []
        self._use_store(lambda: self._read_reason(reasons))
        if reasons:
            return RankLostError(reasons[0])
        _LOG.debug("the meeting of ranks failed: %s", error)
        text, _, _ = str(error).strip().partition(". This is typically")  # gloo's advice
        cause = text.splitlines()[0][:300] if text else "no answer"
        is_late = "timed out" in cause.lower() or "timeout" in cause.lower()
        what = (
            f"has not answered for {self.timeout_s:g} s"
            if is_late
            else "is gone: killed, or its machine"
        )
        return RankLostError(
            f"a learner rank {what} (seen by rank {self.rank} of {self.num_ranks}: {cause})"
        )

    def _read_reason(self, reasons: list[str]) -> None:
        """Appends the reason that another rank has left, or leaves within a second."""
        deadline_s = time.monotonic() + _REASON_S
        while time.monotonic() < deadline_s:
            for rank in range(self.num_ranks):
                if rank != self.rank and self._store.check([f"reason/{rank}"]):
                    text = self._store.get(f"reason/{rank}").decode(errors="replace")
                    reasons.append(f"learner rank {rank} has ended: {text}")
                    return
            time.sleep(0.05)

    def _use_store(self, use: Callable[[], None]) -> None:
        """Calls `use` on a thread of its own and waits for it, for a while.

        A store on a host that cannot be reached any more answers after minutes, if at all.
        """

        def call() -> None:
            with contextlib.suppress(RuntimeError):
                use()

        thread = threading.Thread(target=call, name="impala-rank-store", daemon=True)
        thread.start()
        thread.join(_STORE_S)
