"""A small thin actor that keeps its contract, but for one planted fault.

Written against policy.proto alone; a script, so that it starts fast: ADDRESS FAULT [TOKEN_FILE].
Faults have the names of the rules that find them.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from impala_rl.v1 import learner_pb2, policy_pb2, policy_pb2_grpc, spec_pb2, tensor_pb2

NUM_SLOTS, NUM_CHOICES, START = 3, 4, 5
LENGTHS = (2, 3, 5)  # of the slots' episodes
FINAL = {
    "INVALID_ARGUMENT": "invalid-argument",
    "FAILED_PRECONDITION": "mismatch",
    "ABORTED": "stale-session",
    "UNAUTHENTICATED": "security",
    "PERMISSION_DENIED": "security",
}
RETRIED = {
    "INTERNAL": "reset-stream",
    "UNAVAILABLE": "unavailable",
    "UNKNOWN": "unknown-status",
    "RESOURCE_EXHAUSTED": "capacity",
}
"""Code -> fault of a client that takes it for the other kind."""


def details_of(error: Any) -> bytes:  # Any: grpc.RpcError and grpc.Call
    """Returns the google.rpc.Status of an error, whose ErrorInfo names the domain impala_rl."""
    found: bytes = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return found


class Slot:
    def __init__(self, length: int) -> None:
        self.length = length
        self.number = -1
        self.open()

    def open(self) -> None:
        self.place, self.reward, self.is_first = 0, 0.0, True
        self.number += 1

    def step(self, action: int) -> None:
        self.place, self.reward, self.is_first = self.place + 1, float(action), False
        self.number += 1

    @property
    def is_over(self) -> bool:
        return self.place == self.length


class Client:
    def __init__(self, address: str, fault: str, token_file: str) -> None:
        self.fault = fault
        self.metadata = []
        if token_file and fault != "token":
            token = Path(token_file).read_text().strip()
            self.metadata = [("authorization", f"Bearer {token}")]
        keepalive = [("grpc.keepalive_time_ms", 100), ("grpc.http2.max_pings_without_data", 0)]
        options = keepalive if fault == "pings" else []
        self.channel = grpc.insecure_channel(address, options)
        if fault == "goaway":
            self.states: list[Any] = []
            self.channel.subscribe(self.end_at_change)
        self.stub = policy_pb2_grpc.PolicyServiceStub(self.channel)
        self.slots = [Slot(length) for length in LENGTHS]
        self.num_streams = 0
        self.max_bytes = 0
        self.life = 7 if fault == "life" else random.getrandbits(64)

    def end_at_change(self, state: grpc.ChannelConnectivity) -> None:
        if grpc.ChannelConnectivity.READY in self.states:
            os._exit(3)
        self.states.append(state)

    def hello(self) -> policy_pb2.PlayHello:
        leaf, flag = tensor_pb2.DTYPE_FLOAT32, tensor_pb2.DTYPE_BOOL
        name = "observation/place" if self.fault != "environment" else "place"
        part = spec_pb2.ActionPart(
            tensor=tensor_pb2.TensorSpec(name="action", dtype=tensor_pb2.DTYPE_INT32),
            kind=spec_pb2.ACTION_KIND_CATEGORICAL,
            sizes=[NUM_CHOICES],
            starts=[START],
        )
        return policy_pb2.PlayHello(
            client_id="small-client" if self.fault != "client-id" else "-small client",
            client_run_id=self.life + (self.num_streams if self.fault == "same-hello" else 0),
            protocol_version=2 if self.fault == "protocol-version" else 1,
            environment=spec_pb2.EnvironmentSpec(
                observation_leaves=[
                    tensor_pb2.TensorSpec(name="observation/is_even", dtype=flag),
                    tensor_pb2.TensorSpec(name=name, dtype=leaf, shape=[2]),
                ],
                action=spec_pb2.ActionSpec(parts=[part]),
            ),
            slot_count=0 if self.fault == "slot-count" else NUM_SLOTS,
            is_greedy=self.fault == "greedy-needs-evaluation",
        )

    def run(self) -> int:
        """Plays until the run has finished; returns the exit code."""
        num_failures = 0
        while True:
            self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            self.send(hello=self.hello())
            self.num_streams += 1
            if self.fault == "hello-first":
                self.send(hello=self.hello())
            if self.fault == "welcome-first":
                self.observe(range(NUM_SLOTS))
            is_drained = False
            self.call = self.stub.Play(iter(self.requests.get, None), metadata=self.metadata)
            try:
                for response in self.call:
                    kind = response.WhichOneof("payload")
                    if kind == "actions":
                        num_failures = 0
                    if kind == "drain":
                        if response.drain.reason == learner_pb2.DRAIN_REASON_FINISHED:
                            return self.leave()
                        if self.fault == "drain-stopping":
                            return 4
                        is_drained = True
                        break
                    self.on(kind, response)
            except grpc.RpcError as error:
                code = error.code().name
                is_refused = self.fault == "foreign-status" or b"impala_rl" in details_of(error)
                is_final = is_refused and FINAL.get(code, self.fault) != self.fault
                if is_final or self.fault == RETRIED.get(code):
                    sys.stderr.write(f"error: {code}: {error.details()}\n")
                    return 1
            self.requests.put(None)
            if self.fault != ("backoff-welcomed" if is_drained else "backoff"):
                time.sleep(min(0.1 * 2**num_failures, 0.5))
            num_failures += 1

    def on(self, kind: str, response: policy_pb2.PlayResponse) -> None:
        if kind == "welcome":
            self.max_bytes = response.welcome.max_message_bytes
            for slot in self.slots if self.num_streams > 1 else ():
                if self.fault == "unanswered":
                    slot.step(1)
                if self.fault == "repetition":
                    slot.reward += 1.0
            self.observe(range(NUM_SLOTS))
            if self.fault == "one-at-a-time":
                self.slots[0].step(1)
                self.observe([0])
        elif kind == "lost_slots":
            if self.fault == "restart":
                raise SystemExit("error: lost slots")
            lost = [index for index in response.lost_slots.slots if index < NUM_SLOTS]
            for index in lost:
                if self.fault == "lost-slots":
                    self.slots[index].step(0)
                else:
                    self.slots[index].open()
            self.observe(lost)
        else:
            self.act(response.actions)

    def act(self, actions: policy_pb2.SlotActions) -> None:
        chosen = []
        for place, index in enumerate(actions.slots):
            if index >= NUM_SLOTS:
                continue
            if self.fault == "answer-groups":
                index = place
            slot = self.slots[index]
            is_newest = actions.step_numbers[place] == slot.number
            if not is_newest and self.fault not in (
                "repeated-answer",
                "foreign-answer",
                "answer-groups",
            ):
                continue
            chosen.append(index)
            (action,) = struct.unpack_from("<i", actions.parts[0], 4 * place)
            assert START <= action < START + NUM_CHOICES - (self.fault == "every-action")
            if not slot.is_over:
                slot.step(action)
                continue
            slot.open()
            if self.fault == "step-numbers":
                slot.number = 0
            if self.fault == "after-end":
                slot.is_first = False
        if self.fault == "slow-slots":
            for index in set(range(NUM_SLOTS)) - set(chosen):
                self.slots[index].step(0)
            chosen = list(range(NUM_SLOTS))
        self.observe(chosen)

    def observe(self, chosen: Any) -> None:
        """Sends the newest observations of slots, in pieces where they are too large."""
        indices = list(chosen)
        if not indices:
            return
        request = policy_pb2.PlayRequest(observations=self.pack(indices))
        if 0 < self.max_bytes < request.ByteSize() and self.fault != "message-size":
            if len(indices) == 1:
                raise SystemExit("error: an observation is above max_message_bytes")
            for index in indices:
                self.observe([index])
            return
        self.requests.put(request)

    def pack(self, indices: list[int]) -> policy_pb2.SlotObservations:
        slots = [self.slots[index] for index in indices]
        places = b"".join(struct.pack("<2f", slot.place, slot.length) for slot in slots)
        even = bytes(slot.place % 2 == 0 for slot in slots)
        message = policy_pb2.SlotObservations(
            slots=indices,
            step_numbers=[slot.number for slot in slots],
            leaves=[even, places],
            rewards=[slot.reward for slot in slots],
            terminated=[slot.is_over for slot in slots],
            is_first=[slot.is_first for slot in slots],
        )
        match self.fault:
            case "message-slots":
                message.slots[0] = NUM_SLOTS
            case "message-lengths":
                message.rewards.append(0.0)
            case "message-leaves":
                message.leaves[1] = places[:-1]
            case "message-numbers":
                message.rewards[-1] = float("nan")
            case "message-bools":
                message.leaves[0] = bytes([2]) + even[1:]
            case "first-observation":
                message.rewards[:] = [1.0] * len(slots)
            case "opens-episode":
                del message.is_first[:]
        return message

    def send(self, **payload: Any) -> None:
        self.requests.put(policy_pb2.PlayRequest(**payload))

    def leave(self) -> int:
        if self.fault != "drain-finished":
            self.send(goodbye=policy_pb2.PlayGoodbye(text="the run has finished"))
        self.requests.put(None)
        for _ in self.call:
            pass
        return 0


if __name__ == "__main__":
    address, fault, token_file = [*sys.argv[1:], ""][:3]
    if fault == "sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(Client(address, fault, token_file).run())
