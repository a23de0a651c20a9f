"""What gradients cost between GPUs, by arithmetic.

`python -m benchmarks.studies.exchange_arithmetic` prints a table. Nothing is measured here but the
number of parameters. A ring all-reduce of S bytes over N ranks takes

    2 (N - 1) / N x S / bandwidth  +  2 (N - 1) x latency

as each rank sends each of the N parts of the gradient twice but for its own. Bandwidth is that of
one rank in one direction. What is assumed of the links is in `LINKS`.
"""

from __future__ import annotations

from typing import NamedTuple

from impala_common.config import ModelConfig
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec

_SHARE = 0.15
"""Largest share of an update that the exchange is to take."""
_VECTOR = EnvironmentSpec((TensorSpec("observation", (4,), "float32"),), ActionSpec.discrete(2))
_FRAMES = EnvironmentSpec(
    (TensorSpec("observation", (4, 84, 84), "uint8"),), ActionSpec.discrete(6)
)
_NETWORKS = {"mlp": _VECTOR, "nature_cnn": _FRAMES, "impala_resnet": _FRAMES}


class Link(NamedTuple):
    """A link between ranks.

    Attributes:
      name: for people.
      bytes_per_s: of one rank in one direction.
      latency_s: of one step of the ring, software included; assumed, not measured.
    """

    name: str
    bytes_per_s: float
    latency_s: float


LINKS = (
    Link("NVLink 4 (450 GB/s a direction)", 450e9, 5e-6),
    Link("Ethernet of 25 Gb/s", 25e9 / 8, 30e-6),
)


def compute_exchange_s(num_bytes: int, num_ranks: int, link: Link) -> float:
    """Returns the seconds of a ring all-reduce of `num_bytes` over `num_ranks`."""
    steps = 2 * (num_ranks - 1)
    return steps / num_ranks * num_bytes / link.bytes_per_s + steps * link.latency_s


def count_gradient_bytes(network: str) -> int:
    """Returns the bytes of the gradient of one of the networks, in float32."""
    environment = _NETWORKS[network]
    spec = resolve_model_spec(ModelConfig(model=network), environment)
    model = make_model(spec, environment, seed=1)
    return 4 * sum(parameter.numel() for parameter in model.parameters())


def render(num_ranks: int = 8) -> str:
    """Returns the table."""
    lines = [
        f"| network | bytes | link, {num_ranks} ranks | exchange, ms | "
        f"{_SHARE:.0%} of an update of |",
        "|---" * 5 + "|",
    ]
    for network in _NETWORKS:
        num_bytes = count_gradient_bytes(network)
        for link in LINKS:
            taken_ms = 1e3 * compute_exchange_s(num_bytes, num_ranks, link)
            lines.append(
                f"| {network} | {num_bytes:,} | {link.name} | {taken_ms:.2f} | "
                f"{taken_ms / _SHARE:.1f} ms |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(render())
