"""What the learner reads from its pipes before it begins and after it was told to end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from impala_server.learner.commands import AdminCommands
from impala_server.learner.controller import Controller
from impala_server.learner.welcome import wait_until_bound
from impala_server.messages import Bound, FrontEndCounts, Stop, WithdrawCall
from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.frame_pipe import make_pair


@pytest.mark.parametrize("is_bound_first", [True, False])
def test_stop_counts_that_comes_together_with_the_address(is_bound_first: bool) -> None:
    """Seen to fail: Ctrl-C while torch was imported was lost, and the learner had to be killed."""
    ours, theirs = (ControlPipe(end) for end in make_pair())
    news = [Bound("127.0.0.1:1", ""), Stop()]
    for message in news if is_bound_first else reversed(news):
        ours.send(message)

    assert wait_until_bound(theirs) is None


def test_address_is_returned_where_nobody_stops() -> None:
    ours, theirs = (ControlPipe(end) for end in make_pair())
    ours.send(Bound("127.0.0.1:1", ""))

    assert wait_until_bound(theirs) == "127.0.0.1:1"


def test_call_withdrawn_while_the_learner_ends_does_not_disturb_its_end() -> None:
    """Seen to fail: the message was unexpected, and the last checkpoint was not written."""
    ours, theirs = (ControlPipe(end) for end in make_pair())
    controller: Any = Controller.__new__(Controller)  # no run: only its pipe counts here
    controller._front_end = theirs
    controller._commands = AdminCommands.__new__(AdminCommands)
    controller._commands._tools = SimpleNamespace()
    counts = FrontEndCounts()
    ours.send(WithdrawCall(7))
    ours.send(counts)

    controller._read_last_counts()

    assert controller._front_end_counts == counts
