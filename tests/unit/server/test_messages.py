"""Messages between the server's processes: each comes out as it went in, or an error names it."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

import pytest

from impala_common.errors import CheckpointError, ConfigError, MessageError, QueueClosedError
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, ModelSpec, TensorSpec
from impala_server import messages
from impala_server.messages import KINDS, LearnerStatus, Message, decode, encode
from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.frame_pipe import make_pair
from impala_server.storage.handoff import FreedSlot
from impala_server.storage.process_ends import ProcessEnds, Wiring, make_ends

ENVIRONMENT = EnvironmentSpec(
    (TensorSpec("observation", (4, 84, 84), "uint8"),), ActionSpec.discrete(3), frame_stack=4
)
MODEL = ModelSpec("mlp", (64, 32), 64, 64, "lstm", "orthogonal", "tanh", True, 1 / 255)
STATUS = LearnerStatus(
    state="PAUSED",
    metrics={"steps": 12, "loss/total": -0.5, "odd": math.inf, "none": None},
    total_steps=10**12,
    device="cpu",
    trouble="a pause",
    last_checkpoint="step-000000000000",
    last_checkpoint_age_s=0.25,
    evaluation_steps=4,
    is_judging=True,
)
EXAMPLES: list[Message] = [
    messages.Stop(),
    messages.Failed("CHECKPOINT", "nö"),
    messages.Bound("127.0.0.1:1", None),
    messages.Bound("127.0.0.1:1", "127.0.0.1:2"),
    messages.StatusNews(STATUS),
    messages.StatusNews(LearnerStatus(state="STARTING")),
    messages.ShutdownAsked(),
    messages.LogLevelSet("INFO"),
    messages.Define(ENVIRONMENT),
    messages.Ready(
        learner_run_id=2**64 - 1,
        learner_life=3,
        environment=ENVIRONMENT,
        model=MODEL,
        agent_state=(TensorSpec("state", (1, 64), "float32"),),
        weights=(TensorSpec("a", (), "float32"), TensorSpec("b", (2, 3), "int64")),
        max_policy_lag=7,
    ),
    messages.Refused("MODEL", "no"),
    messages.PolicyLagSet(0),
    messages.RanksNews(0, ("127.0.0.1:1", "127.0.0.1:2"), (3, 4)),
    messages.CandidateReady("candidate-1", 10, 1),
    messages.DropCandidate("candidate-1"),
    messages.Drain("finished", is_judged=True),
    messages.Judged(),
    messages.FrontEndCounts(accepted=3, storage_fill=0.5, busy=1),
    messages.Call(1, "set", {"name": "entropy_cost", "value": "0.1"}),
    messages.WithdrawCall(1),
    messages.Answer(1, "RUNNING", {"parameters": [{"name": "x"}]}),
    messages.CallFailed(1, "CAPACITY", "full"),
]


def as_json(message: Message) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(encode(message))
    return content


def test_every_kind_has_an_example() -> None:
    assert {type(message) for message in EXAMPLES} == set(KINDS.values()) == set(get_args(Message))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_decode_of_encoded_message_gives_it_back(message: Message) -> None:
    assert decode(encode(message)) == message
    assert as_json(message)["kind"] == type(message).__name__


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_decode_names_each_field_that_is_missing_or_of_another_type(message: Message) -> None:
    for field in dataclasses.fields(message):
        content = as_json(message)
        is_needed = field.default is dataclasses.MISSING
        name = f"{type(message).__name__}.{field.name}"
        wrongs: list[object] = [[1.5, None, {}]]
        if not isinstance(getattr(message, field.name), bool):
            wrongs.append(True)
        for wrong in wrongs:
            with pytest.raises(MessageError, match=name.replace(".", r"\.")):
                decode(json.dumps(content | {field.name: wrong}).encode())
        if is_needed:
            del content[field.name]
            with pytest.raises(MessageError, match=f"{field.name} is missing"):
                decode(json.dumps(content).encode())


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"kind": "Later"}', "unknown message 'Later'; expected one of Stop, "),
        (b'{"kind": "Stop", "more": 1}', "Stop: unknown field more"),
        (b'{"text": "x"}', "an object with a kind"),
        (b"[]", "an object with a kind"),
        (b'{"kind": 3}', "an object with a kind"),
        (b"\xff", "a message as JSON"),
        (b'{"kind": "StatusNews", "status": {"state": 3}}', r"LearnerStatus\.state: expected str"),
        (b'{"kind": "StatusNews", "status": {}}', "LearnerStatus: state is missing"),
        (
            b'{"kind": "StatusNews", "status": {"state": "", "metrics": {"x": "1"}}}',
            r"LearnerStatus\.metrics\[x\]: expected float",
        ),
        (b'{"kind": "PolicyLagSet", "max_policy_lag": true}', "expected int, got true"),
        (b'{"kind": "PolicyLagSet", "max_policy_lag": 1.0}', r"expected int, got 1\.0"),
        (b'{"kind": "Define", "environment": {}}', r"Define\.environment: not a EnvironmentSpec"),
    ],
)
def test_decode_of_what_is_no_message_says_what_is_wrong(data: bytes, text: str) -> None:
    with pytest.raises(MessageError, match=text):
        decode(data)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError("x", 1, "2"), "CONFIG"),
        (CheckpointError("gone"), "CHECKPOINT"),
        (KeyError("a bug"), "INTERNAL"),
    ],
)
def test_failed_of_an_error_has_its_reason(error: Exception, reason: str) -> None:
    failed = messages.Failed.of(error)

    assert failed.reason == reason
    assert str(error) in failed.text


def test_status_number_is_a_metric_or_a_number_of_the_status_itself() -> None:
    assert STATUS.number("steps") == 12
    assert STATUS.number("evaluation_steps") == 4
    assert STATUS.number("none") is None
    assert STATUS.number("device") is None
    assert STATUS.number("unknown") is None


def test_control_pipe_carries_messages_both_ways() -> None:
    left, right = map(ControlPipe, make_pair())

    left.send(messages.Define(ENVIRONMENT))
    right.send(messages.Refused("MODEL", "no"))
    right.send(messages.Judged())

    assert right.receive(1.0) == messages.Define(ENVIRONMENT)
    assert left.receive_all() == [messages.Refused("MODEL", "no"), messages.Judged()]
    assert right.receive(0.0) is None
    left.close()
    right.close()


def test_receive_all_returns_the_last_messages_of_a_peer_that_is_gone() -> None:
    """Seen to fail: an answer was lost with the learner that had sent it as its last word."""
    left, right = map(ControlPipe, make_pair())
    left.send(messages.Judged())
    left.close()

    assert right.receive_all() == [messages.Judged()]
    with pytest.raises(QueueClosedError):
        right.receive_all()
    right.close()


def test_send_to_a_peer_that_is_gone_is_noticed_by_reading_only() -> None:
    left, right = map(ControlPipe, make_pair())
    right.close()

    left.send(messages.Stop())
    left.send_if_room(messages.Stop())
    assert left.flush()

    with pytest.raises(QueueClosedError, match="control pipe"):
        left.receive(1.0)
    left.close()
    left.send_if_room(messages.Stop())


def test_send_if_room_leaves_news_out_for_a_peer_that_does_not_read() -> None:
    """Seen to fail with plain sends, which wait in the buffer without end."""
    left, right = map(ControlPipe, make_pair())
    for number in range(2000):
        left.send_if_room(messages.Failed("x" * 1000, str(number)))

    assert left.frames.num_unsent_bytes == 0
    got = right.receive_all()
    assert 0 < len(got) < 200
    assert got[0] == messages.Failed("x" * 1000, "0")
    left.close()
    right.close()


def test_make_ends_connects_any_number_of_children() -> None:
    wiring = Wiring(
        children=("learner", "front_end", "helper"),
        controls=(("learner", "front_end"), ("learner", "helper")),
        handoffs=(("learner", "front_end"),),
        blocks={"storage": ("learner", "front_end"), "weights": ("learner", "helper")},
    )
    ends, supervisor = make_ends(wiring)
    learner, front_end, helper = (ends[name] for name in wiring.children)
    learner.blocks["storage"].resize(4096)
    try:
        for name, pipe in supervisor.items():
            pipe.send(messages.LogLevelSet(name))
            assert ends[name].supervisor.receive(1.0) == messages.LogLevelSet(name)
        helper.controls["learner"].send(messages.Stop())
        assert learner.controls["helper"].receive(1.0) == messages.Stop()
        learner.handoffs["front_end"].send_free(9)
        assert front_end.handoffs["learner"].receive_free() == FreedSlot(9, True)
        learner.blocks["storage"].map()[5] = 7
        assert front_end.blocks["storage"].map()[5] == 7
        assert set(helper.blocks) == {"weights"}
        assert not helper.handoffs

        taken_over = ProcessEnds.from_argument(learner.to_argument())

        assert taken_over.fds == learner.fds
        assert len(set(learner.fds)) == 6
        taken_over.supervisor.send(messages.Judged())
        assert supervisor["learner"].receive(1.0) == messages.Judged()
    finally:
        for pipe in taken_over.pipes:  # the same descriptors as the learner's: closed once
            pipe.frames._end.detach()
        for one in ends.values():
            one.close_pipes()
            one.close_blocks()
        for control in supervisor.values():
            control.close()
