"""A mutation driver for machines without atheris, and for the short runs of `make test`.

Fast and repeatable, but blind: it keeps inputs that were let through, and knows nothing of
coverage.
"""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from targets import Target

_MAX_BYTES = 4096
_MAX_CORPUS = 256
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


class FindingError(AssertionError):
    """An input that was neither taken nor refused."""


class Executions(NamedTuple):
    """What a run came to."""

    executions: int
    accepted: int
    seconds: float


def drive(target: Target, executions: int, seed: int, max_s: float = float("inf")) -> Executions:
    """Runs mutated inputs until there were enough or the time is over.

    Raises:
      FindingError: with the input, for a regression test.
    """
    rng = random.Random(seed)
    corpus = target.seeds()
    accepted = done = 0
    start_s = time.monotonic()
    for data in list(corpus):
        assert run_one(target, data), f"{target.name}: a good seed was refused"
    for done in range(1, executions + 1):
        data = _mutate(rng, corpus)
        if run_one(target, data):
            accepted += 1
            if len(corpus) < _MAX_CORPUS:
                corpus.append(data)
        if done % 64 == 0 and time.monotonic() - start_s > max_s:
            break
    return Executions(done, accepted, time.monotonic() - start_s)


def run_one(target: Target, data: bytes) -> bool:
    """Returns whether the input was let through; FindingError names one that broke something."""
    try:
        return target.run(data)
    except Exception as error:
        raise FindingError(f"{target.name}: {error!r} for {data!r}") from error


def _mutate(rng: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(rng.choice(corpus))
    for _ in range(1 << rng.randrange(5)):
        if not data:
            data += rng.randbytes(8)
        at = rng.randrange(len(data))
        match rng.randrange(8):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + 1 + rng.randrange(16)]
            case 3:
                data[at:at] = rng.randbytes(1 + rng.randrange(8))
            case 4:
                size = rng.choice((1, 2, 4, 8))
                number = rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)
                data[at : at + size] = number.to_bytes(size, "little")
            case 5:
                size = 1 + rng.randrange(32)
                to = rng.randrange(len(data))
                data[to:to] = data[at : at + size]
            case 6:
                other = rng.choice(corpus)
                begin = rng.randrange(len(other)) if other else 0
                data[at:] = other[begin : begin + _MAX_BYTES]
            case 7:
                data[at] = (data[at] + rng.choice((1, 255))) & 255
    return bytes(data[:_MAX_BYTES])
