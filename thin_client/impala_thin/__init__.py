"""Thin actors: play an environment against a policy server, without a network of one's own.

Needs grpcio, protobuf and numpy; gymnasium only for its spaces and for `impala-thin-actor`.
"""

from __future__ import annotations

from impala_thin.async_slots_client import AsyncSlotsClient
from impala_thin.batches import Actions, Observations
from impala_thin.client import AsyncPolicyClient, PolicyClient
from impala_thin.environment import Environment
from impala_thin.errors import (
    EpisodeLostError,
    RefusedError,
    RunFinishedError,
    ServerUnavailableError,
    StoppedError,
    ThinError,
)
from impala_thin.hello import ClientSettings
from impala_thin.slots_client import SlotsClient

__all__ = [
    "Actions",
    "AsyncPolicyClient",
    "AsyncSlotsClient",
    "ClientSettings",
    "Environment",
    "EpisodeLostError",
    "Observations",
    "PolicyClient",
    "RefusedError",
    "RunFinishedError",
    "ServerUnavailableError",
    "SlotsClient",
    "StoppedError",
    "ThinError",
]
