"""Rules of a policy server about single messages: their lists, bytes, numbers and options."""

from __future__ import annotations

import struct

import numpy as np
from google.protobuf.message import Message

from impala_conformance.environment import find_illegal, find_mask
from impala_conformance.policy_peer import INVALID, Player, PolicyPeer
from impala_conformance.rule import Rule, SkippedError, ViolationError, require
from impala_rl.v1 import policy_pb2, spec_pb2, tensor_pb2

_SLOTS = "slots that are none, twice, or not the client's are INVALID_ARGUMENT"
_LENGTHS = "lists of another length than slots are INVALID_ARGUMENT"
_LEAVES = "leaves of another number or size are INVALID_ARGUMENT"
_NUMBERS = "numbers that are not finite, or negative step numbers, are INVALID_ARGUMENT"
_BOOLS = "a bool that is neither 0 nor 1 is INVALID_ARGUMENT"
_FIRST = "is_first with a reward or an end is INVALID_ARGUMENT"
_CODEC = "an unknown codec, and bytes that are no zstd frame, are INVALID_ARGUMENT"
_ZSTD = "leaves may come as one zstd frame each"
_EMPTY = "a message without payload after hello is INVALID_ARGUMENT"
_UNKNOWN = "a field that the server does not know is ignored"
_SIZE = "a message above max_message_bytes is refused"
_LOGITS = "logits come if hello wants them, one row for each slot, all finite"
_GREEDY = "greedy slots take the likeliest action: the same for the same observation"
_MASK = "no action is one that the mask forbids"
_ROUNDS = 40
_LARGEST = 256 << 20
_RAW_BLOCK = 1 << 17


def _refuse(peer: PolicyPeer, message: policy_pb2.SlotObservations, num_slots: int = 1) -> None:
    player = peer.player(num_slots)
    player.stream.send(observations=message)
    player.stream.require_refused(INVALID)


def _first(peer: PolicyPeer, num_slots: int = 1) -> policy_pb2.SlotObservations:
    return Player(peer, num_slots).message(is_first=True)


def _check_slots(peer: PolicyPeer) -> None:
    for slots in ([0, 0], [0, 2], [0, -1]):
        message = _first(peer, 2)
        message.slots[:] = slots
        _refuse(peer, message, 2)
    _refuse(peer, policy_pb2.SlotObservations(leaves=[b""] * len(_first(peer).leaves)))


def _check_lengths(peer: PolicyPeer) -> None:
    for name in ("step_numbers", "rewards", "terminated", "truncated", "is_first"):
        message = _first(peer, 2)
        getattr(message, name).append(0)
        if name in ("terminated", "truncated"):
            getattr(message, name).extend([False] * 2)
        _refuse(peer, message, 2)


def _check_leaves(peer: PolicyPeer) -> None:
    message = _first(peer)
    message.leaves.append(b"")
    _refuse(peer, message)
    message = _first(peer)
    message.leaves[0] = message.leaves[0][:-1]
    _refuse(peer, message)
    message = _first(peer)
    message.leaves[0] += b"\0"
    _refuse(peer, message)


def _check_numbers(peer: PolicyPeer) -> None:
    for reward in (float("nan"), float("inf")):
        message = _first(peer)
        message.rewards[0] = reward
        _refuse(peer, message)
    message = _first(peer)
    message.step_numbers[0] = -1
    _refuse(peer, message)
    for index, leaf in enumerate(peer.environment.observation_leaves):
        if leaf.dtype == tensor_pb2.DTYPE_FLOAT32:
            message = _first(peer)
            values = np.frombuffer(message.leaves[index], "<f4").copy()
            values[-1] = np.nan
            message.leaves[index] = values.tobytes()
            _refuse(peer, message)


def _check_bools(peer: PolicyPeer) -> None:
    leaves = peer.environment.observation_leaves
    chosen = [i for i, leaf in enumerate(leaves) if leaf.dtype == tensor_pb2.DTYPE_BOOL]
    if not chosen:
        raise SkippedError("the environment has no leaf of bools")
    message = _first(peer)
    message.leaves[chosen[0]] = b"\2" * len(message.leaves[chosen[0]])
    _refuse(peer, message)


def _check_first(peer: PolicyPeer) -> None:
    message = _first(peer)
    message.rewards[0] = 1.0
    _refuse(peer, message)
    for name in ("terminated", "truncated"):
        message = _first(peer)
        getattr(message, name).append(True)
        _refuse(peer, message)


def _check_codec(peer: PolicyPeer) -> None:
    for codec in (tensor_pb2.CODEC_ZSTD, 99):
        message = _first(peer)
        message.codec = codec  # type: ignore[assignment]
        _refuse(peer, message)


def _check_zstd(peer: PolicyPeer) -> None:
    player = peer.player(2)
    for step in range(2):
        message = player.message(is_first=step == 0)
        for index, leaf in enumerate(message.leaves):
            message.leaves[index] = make_raw_frame(leaf)
        message.codec = tensor_pb2.CODEC_ZSTD
        player.act(message)
    player.leave()


def _check_empty(peer: PolicyPeer) -> None:
    player = peer.player()
    player.stream.send()
    player.stream.require_refused(INVALID)


def _check_size(peer: PolicyPeer) -> None:
    player = peer.player()
    size = player.welcome.max_message_bytes
    if size > _LARGEST:
        raise SkippedError(f"max_message_bytes is {size}: too much to try")
    message = _first(peer)
    add_unknown_field(message, size)  # what is read of it keeps the contract
    player.stream.send(observations=message)
    player.stream.require_refused("RESOURCE_EXHAUSTED ", INVALID)


def _check_unknown(peer: PolicyPeer) -> None:
    player = peer.player()
    for step in range(2):
        message = player.message(is_first=step == 0)
        add_unknown_field(message, 10)
        player.act(message)
    player.leave()


def _check_logits(peer: PolicyPeer) -> None:
    player = peer.player(3, wants_logits=True)
    for step in range(3):
        answers = player.act(player.message(is_first=step == 0))
        logits = [answer.logits for answer in answers.values()]
        require(bool(np.isfinite(logits).all()), "finite logits", logits)
    player.leave()


def _check_greedy(peer: PolicyPeer) -> None:
    num = 16
    player = peer.player(num, is_evaluation=True, is_greedy=True, wants_logits=True)
    maker = Player(peer, 1)
    for _ in range(4):
        one = maker.message(is_first=True)
        message = player.message(is_first=True)
        message.leaves[:] = [leaf * num for leaf in one.leaves]
        answers = player.act(message)
        first = answers[0]
        for slot, answer in answers.items():
            is_same = all(
                np.array_equal(a, b) for a, b in zip(first.actions, answer.actions, strict=True)
            )
            require(is_same, f"slot {slot} to do as slot 0: {first.actions}", answer.actions)
        parts = peer.environment.action.parts
        is_choice = parts[0].kind == spec_pb2.ACTION_KIND_CATEGORICAL
        if len(parts) == 1 and is_choice and len(parts[0].sizes) == 1:
            likeliest = int(first.logits.argmax()) + parts[0].starts[0]
            chosen = int(first.actions[0].reshape(()))
            require(chosen == likeliest, f"the likeliest action {likeliest}", chosen)
    player.leave()


def _check_mask(peer: PolicyPeer) -> None:
    index = find_mask(peer.environment)
    if index is None:
        raise SkippedError("the environment has no mask of legal actions")
    num = 8
    player = peer.player(num)
    leaf = peer.environment.observation_leaves[index]
    dtype = tensor_pb2.DType.Name(leaf.dtype).removeprefix("DTYPE_").lower()
    for step in range(_ROUNDS):
        message = player.message(is_first=step == 0)
        mask = np.frombuffer(message.leaves[index], dtype).reshape(num, -1)
        answers = player.act(message)
        num_parts = len(peer.environment.action.parts)
        actions = [
            np.stack([answers[slot].actions[part] for slot in range(num)])
            for part in range(num_parts)
        ]
        illegal = np.flatnonzero(find_illegal(peer.environment, mask, actions))
        if illegal.size:
            slot = int(illegal[0])
            chosen = [array[slot].tolist() for array in actions]
            raise ViolationError(
                f"expected a legal action in slot {slot}, mask {mask[slot].astype(int).tolist()}, "
                f"got {chosen}"
            )
    player.leave()


def add_unknown_field(message: Message, num_bytes: int) -> None:
    """Adds a field of a later version of the protocol: bytes, with number 2000."""
    message.MergeFromString(
        encode_varint(2000 << 3 | 2) + encode_varint(num_bytes) + bytes(num_bytes)
    )


def encode_varint(number: int) -> bytes:
    """Returns a number in protobuf's form."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def make_raw_frame(data: bytes) -> bytes:
    """Returns a zstd frame (RFC 8878) of `data` that declares its size, in plain blocks."""
    frame = [struct.pack("<IBI", 0xFD2FB528, 0b1010_0000, len(data))]
    starts = range(0, max(len(data), 1), _RAW_BLOCK)
    for start in starts:
        block = data[start : start + _RAW_BLOCK]
        is_last = start == starts[-1]
        frame += [(len(block) << 3 | is_last).to_bytes(3, "little"), block]
    return b"".join(frame)


RULES: list[Rule[PolicyPeer]] = [
    Rule("message-slots", _SLOTS, _check_slots),
    Rule("message-lengths", _LENGTHS, _check_lengths),
    Rule("message-leaves", _LEAVES, _check_leaves),
    Rule("message-numbers", _NUMBERS, _check_numbers),
    Rule("message-bools", _BOOLS, _check_bools),
    Rule("message-first", _FIRST, _check_first),
    Rule("message-codec", _CODEC, _check_codec),
    Rule("message-zstd", _ZSTD, _check_zstd),
    Rule("message-empty", _EMPTY, _check_empty),
    Rule("unknown-field", _UNKNOWN, _check_unknown),
    Rule("message-size", _SIZE, _check_size),
    Rule("logits", _LOGITS, _check_logits),
    Rule("greedy", _GREEDY, _check_greedy),
    Rule("action-mask", _MASK, _check_mask),
]
