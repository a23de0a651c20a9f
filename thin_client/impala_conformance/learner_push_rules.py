"""Rules of a learner about PushUnrolls: hello, verdicts, resending, bad unrolls, the end."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from impala_conformance.learner_peer import ACCEPTED, INVALID, Actor, LearnerPeer, name_of, show
from impala_conformance.policy_message_rules import make_raw_frame
from impala_conformance.rule import Rule, SkippedError, require
from impala_rl.v1 import learner_pb2, tensor_pb2, unroll_pb2

_FIRST = "hello is the first message of a stream; anything else is INVALID_ARGUMENT"
_TWICE = "a second hello, and a message without payload, are INVALID_ARGUMENT"
_ORDER = "each message gets one verdict, in order, also beyond the window"
_HEADER = "verdicts say the learner's life, and a policy_version that never goes down"
_DUPLICATE = "a message that comes again after a broken stream is DUPLICATE"
_HALF_CLOSED = "after half-closing without goodbye the stream ends; what was accepted stays"
_GOODBYE = "after goodbye the stream ends without an error"
_FOREIGN = "unrolls of another session than the stream's are INVALID_ARGUMENT"
_NUMBERS = "numbers that are not finite are INVALID, and the stream goes on"
_SHAPES = "leaves of another number, type, shape or size are INVALID"
_DIGEST = "a digest that does not fit is INVALID"
_ACTIONS = "an action out of its range is INVALID"
_FUTURE = "a policy_version that does not exist yet is INVALID"
_ZERO = "sequence_number 0 is INVALID"
_CODEC = "an unknown codec, and bytes that are no zstd frame, are INVALID"
_ZSTD = "tensors may come as one zstd frame each"
_SIZE = "a message above max_message_bytes is refused"
_DRAIN = "a learner that stops sends drain"
_REASONS = (learner_pb2.DRAIN_REASON_FINISHED, learner_pb2.DRAIN_REASON_STOPPING)
_DUPLICATE_OUTCOME = learner_pb2.VERDICT_OUTCOME_DUPLICATE
_INVALID_OUTCOME = learner_pb2.VERDICT_OUTCOME_INVALID
_BEYOND_WINDOW = 3
_LARGEST = 256 << 20

Change = Callable[[unroll_pb2.UnrollBatch], object]


def _check_first(peer: LearnerPeer) -> None:
    actor = peer.actor()
    for payload in (
        {"unrolls": actor.message()},
        {"goodbye": learner_pb2.PushGoodbye()},
        {},
    ):
        stream = peer.stream(actor)
        stream.send(**payload)
        stream.require_refused(INVALID)


def _check_twice(peer: LearnerPeer) -> None:
    actor = peer.actor()
    for payload in (
        {"hello": learner_pb2.PushHello(actor=actor.header)},
        {},
    ):
        stream = actor.push()
        stream.send(**payload)
        stream.require_refused(INVALID)


def _check_order(peer: LearnerPeer) -> None:
    actor = peer.actor()
    stream = actor.push()
    numbers = []
    for _ in range(actor.registered.limits.window + _BEYOND_WINDOW):
        message = actor.message()
        numbers.append(message.sequence_number)
        stream.send(unrolls=message)
    answered = [actor.verdict(stream).sequence_number for _ in numbers]
    require(answered == numbers, f"verdicts of {numbers}", answered)
    actor.leave()


def _check_header(peer: LearnerPeer) -> None:
    actor = peer.actor()
    stream = actor.push()
    life, last = actor.registered.learner.learner_run_id, 0
    for _ in range(6):
        header = actor.offer(stream, actor.message()).learner
        require(header.learner_run_id == life, f"learner_run_id {life}", header.learner_run_id)
        version = header.policy_version
        require(version >= last, f"policy_version of at least {last}", version)
        last = version
    actor.leave()


def _check_duplicate(peer: LearnerPeer) -> None:
    actor = peer.actor()
    stream = actor.push()
    message = actor.push_accepted(stream)
    stream.break_off()
    stream = actor.push()
    actor.require_verdict(stream, message, _DUPLICATE_OUTCOME, "what was accepted")
    actor.push_accepted(stream)
    actor.leave()


def _check_half_closed(peer: LearnerPeer) -> None:
    actor = peer.actor()
    stream = actor.push()
    message = actor.push_accepted(stream)
    stream.half_close()
    left = stream.read_to_end()
    require(not left, "nothing after the last verdict", left)
    actor.require_verdict(actor.push(), message, _DUPLICATE_OUTCOME, "what was accepted")


def _check_goodbye(peer: LearnerPeer) -> None:
    actor = peer.actor()
    actor.push_accepted(actor.push())
    actor.leave()


def _check_foreign(peer: LearnerPeer) -> None:
    one, two = peer.actor(), peer.actor()
    stream = one.push()
    stream.send(unrolls=two.message())
    stream.require_refused(INVALID)


def _check_numbers(peer: LearnerPeer) -> None:
    for name in ("rewards", "behaviour_policy_logits"):
        for number in (np.nan, np.inf):
            change = _set_number(peer, name, number)
            _require_invalid(peer, f"{name} of {number}", change)


def _check_shapes(peer: LearnerPeer) -> None:
    _require_invalid(peer, "a leaf too many", lambda m: m.leaves.add())
    _require_invalid(peer, "a leaf too few", lambda m: m.leaves.pop())
    _require_invalid(peer, "unroll_count 2", lambda m: setattr(m, "unroll_count", 2))
    index = _index_of(peer.actor(), "rewards")

    def shorten(message: unroll_pb2.UnrollBatch) -> None:
        message.leaves[index].data = message.leaves[index].data[:-1]

    _require_invalid(peer, "bytes that are too few", shorten)

    def retype(message: unroll_pb2.UnrollBatch) -> None:
        message.leaves[index].dtype = tensor_pb2.DTYPE_INT32

    _require_invalid(peer, "another element type", retype)


def _check_digest(peer: LearnerPeer) -> None:
    actor = peer.actor()
    stream = actor.push()
    message = actor.message()
    message.digest ^= 1
    actor.require_verdict(stream, message, _INVALID_OUTCOME, "another digest")
    actor.push_accepted(stream)


def _check_actions(peer: LearnerPeer) -> None:
    number = 1 << 20
    _require_invalid(peer, f"action {number}", _set_number(peer, "actions", number))


def _check_future(peer: LearnerPeer) -> None:
    def change(message: unroll_pb2.UnrollBatch) -> None:
        message.policy_version += 1 << 40

    _require_invalid(peer, "a version of the future", change)


def _check_zero(peer: LearnerPeer) -> None:
    _require_invalid(peer, "number 0", lambda m: setattr(m, "sequence_number", 0))


def _check_codec(peer: LearnerPeer) -> None:
    for codec in (tensor_pb2.CODEC_ZSTD, 99):
        _require_invalid(peer, f"codec {codec}", functools.partial(_set_codec, codec))


def _set_codec(codec: int, message: unroll_pb2.UnrollBatch) -> None:
    message.leaves[0].codec = codec  # type: ignore[assignment]


def _check_zstd(peer: LearnerPeer) -> None:
    actor = peer.actor()
    stream = actor.push()

    def compress(message: unroll_pb2.UnrollBatch) -> None:
        for leaf in message.leaves:
            if leaf.data:
                leaf.data = make_raw_frame(leaf.data)
                leaf.codec = tensor_pb2.CODEC_ZSTD

    actor.require_verdict(stream, actor.message(compress), ACCEPTED, "zstd frames")
    actor.leave()


def _check_size(peer: LearnerPeer) -> None:
    actor = peer.actor()
    size = actor.registered.limits.max_message_bytes
    if size > _LARGEST:
        raise SkippedError(f"max_message_bytes is {size}: too much to try")
    stream = actor.push()
    message = actor.message()
    message.leaves[0].data += bytes(size)
    stream.send(unrolls=message)
    stream.require_refused("RESOURCE_EXHAUSTED ", INVALID)


def _check_drain(peer: LearnerPeer) -> None:
    if peer.stop is None:
        raise SkippedError("no --stop-command was given")
    actor = peer.actor()
    stream = actor.push()
    actor.push_accepted(stream)
    peer.stop()
    response = stream.next()
    kind = response.WhichOneof("payload")
    require(kind == "drain", "drain", kind)
    require(response.drain.reason in _REASONS, "FINISHED or STOPPING", response.drain.reason)


def _require_invalid(peer: LearnerPeer, what: str, change: Change) -> None:
    """A new actor sends one spoilt message, which is INVALID, and goes on."""
    actor = peer.actor()
    stream = actor.push()
    verdict = actor.offer(stream, actor.message(change))
    is_invalid = verdict.outcome == _INVALID_OUTCOME
    require(is_invalid, f"{name_of(_INVALID_OUTCOME)} for {what}", show(verdict))
    require(bool(verdict.text), f"a text that says what was wrong with {what}", "none")
    actor.push_accepted(stream)


def _set_number(peer: LearnerPeer, name: str, number: float) -> Change:
    index = _index_of(peer.actor(), name)

    def change(message: unroll_pb2.UnrollBatch) -> None:
        leaf = message.leaves[index]
        dtype = tensor_pb2.DType.Name(leaf.dtype).removeprefix("DTYPE_").lower()
        values = np.frombuffer(leaf.data, dtype).copy()
        values[0] = number
        leaf.data = values.tobytes()

    return change


def _index_of(actor: Actor, name: str) -> int:
    leaves = [leaf.tensor.name for leaf in actor.registered.unroll.leaves]
    require(name in leaves, f"a leaf {name!r} in an unroll", leaves)
    return leaves.index(name)


RULES: list[Rule[LearnerPeer]] = [
    Rule("hello-first", _FIRST, _check_first),
    Rule("hello-twice", _TWICE, _check_twice),
    Rule("verdict-order", _ORDER, _check_order),
    Rule("verdict-header", _HEADER, _check_header),
    Rule("duplicate", _DUPLICATE, _check_duplicate),
    Rule("half-closed", _HALF_CLOSED, _check_half_closed),
    Rule("goodbye", _GOODBYE, _check_goodbye),
    Rule("foreign-session", _FOREIGN, _check_foreign),
    Rule("unroll-numbers", _NUMBERS, _check_numbers),
    Rule("unroll-shapes", _SHAPES, _check_shapes),
    Rule("unroll-digest", _DIGEST, _check_digest),
    Rule("unroll-actions", _ACTIONS, _check_actions),
    Rule("unroll-version", _FUTURE, _check_future),
    Rule("sequence-number", _ZERO, _check_zero),
    Rule("unroll-codec", _CODEC, _check_codec),
    Rule("unroll-zstd", _ZSTD, _check_zstd),
    Rule("message-size", _SIZE, _check_size),
    Rule("drain", _DRAIN, _check_drain, ends_server=True),
]
