"""ClientSession: plays with one process of the client, step by step, as a rule says.

A rule says what the server does; what the client sends meanwhile is judged as it is read. Nothing
here is a promise of the client: the rules say what is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from impala_conformance.action_maker import ActionMaker, join_actions
from impala_conformance.client_streams import ClientStreams, EarlyEndError, StillnessError
from impala_conformance.environment import count_logits
from impala_rl.v1 import policy_pb2


class ClientSession(ClientStreams):
    """Reads and answers observations.

    Attributes:
      message_sizes: (serialised bytes, slots) of the client's messages of observations.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        patience_s: float,
        start_s: float,
        note: Callable[[str, str], None] | None = None,
    ) -> None:
        """Starts a server and the client; see ClientStreams."""
        super().__init__(command, patience_s=patience_s, start_s=start_s, note=note)
        self.message_sizes: list[tuple[int, int]] = []
        self._actions: ActionMaker | None = None

    def gather(self, slots: Sequence[int] | None = None) -> None:
        """Reads until `slots` (all) wait for an answer.

        Raises:
          EarlyEndError: the client, or its stream, ended.
          StillnessError: it does not come to that in time.
        """
        wanted = set(range(self.num_slots) if slots is None else slots)
        end_s = time.monotonic() + self.patience_s
        while missing := wanted - self.judge.waiting:
            what = f"observations of slots {_brief(missing)}"
            if self.stream.is_over or self.is_goodbye:
                raise EarlyEndError(f"expected {what}, got the end of the client's stream")
            self.read(what, max(end_s - time.monotonic(), 0.0))

    def read(self, what: str = "a message", timeout_s: float | None = None) -> None:
        """Reads one message and has it judged; `what` is expected, for people.

        Raises:
          EarlyEndError: the client ended.
          StillnessError: nothing came in time.
        """
        request = self.wait(self.stream.take, what, timeout_s)
        if request is None:
            return
        kind = request.WhichOneof("payload")
        if self.is_goodbye:
            self.note("goodbye-last", f"expected nothing after goodbye, got {kind}")
        elif kind == "observations":
            self.message_sizes.append((request.ByteSize(), len(request.observations.slots)))
            self.judge.take(request.observations)
        elif kind == "goodbye":
            self.is_goodbye = True
        else:
            self.note("hello-first", f"expected observations or goodbye after hello, got {kind}")

    def listen(self, duration_s: float) -> None:
        """Reads what comes for so long, or until the stream or the client ends."""
        end_s = time.monotonic() + duration_s
        while not self.stream.is_over and (left_s := end_s - time.monotonic()) > 0:
            try:
                self.read(timeout_s=left_s)
            except StillnessError:
                return

    def answer(self, slots: Sequence[int] | None = None, edge: int | None = None) -> None:
        """Answers the newest observations of `slots` (all that wait) in one message.

        Args:
          slots: those that wait.
          edge: see `ActionMaker.make`.
        """
        chosen = sorted(self.judge.waiting if slots is None else slots)
        lost = [slot for slot in chosen if slot in self.judge.lost]
        if lost:
            self.stream.send(lost_slots=policy_pb2.LostSlots(slots=lost))
            self.judge.say_lost(lost)
        if known := [slot for slot in chosen if slot not in lost]:
            self.stream.send(actions=self.make_actions(known, edge))
            self.judge.say_answered(known)

    def make_actions(self, slots: list[int], edge: int | None = None) -> policy_pb2.SlotActions:
        """Returns actions for the newest observations of slots that are known."""
        known = [self.judge.slots[slot] for slot in slots]
        width = count_logits(self.hello.environment.action) if self.hello.wants_logits else 0
        are_over = all(one.is_over for one in known)
        return join_actions(
            slots,
            [one.number for one in known],
            [
                self._maker().make(one.leaves, None if edge is None else edge + slot)
                for slot, one in zip(slots, known, strict=True)
            ],
            width,
            -1 if are_over else 0,
        )

    @property
    def num_edges(self) -> int:
        """Rounds of `answer` with `edge` that give every value of the actions."""
        return self._maker().num_rounds

    def play(self, num_rounds: int) -> None:
        """Answers all slots, so many times."""
        for _ in range(num_rounds):
            self.gather()
            self.answer()

    def _maker(self) -> ActionMaker:
        if self._actions is None:
            self._actions = ActionMaker(self.hello.environment)
        return self._actions


def _brief(slots: set[int]) -> str:
    listed = sorted(slots)
    return f"{listed[:8]}" + (" and others" if len(listed) > 8 else "")
