"""Joining: the learner ranks find each other, compare what must be equal, and connect.

Runs on the controller's thread at the start of the learner process. The ranks compare software and
settings through a store that all of them reach, before any of them depends on another: a rank of
another version, or with other settings, is refused by all with a reason.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import socket
import time
from typing import Any

import torch
import torch.distributed as dist

from impala_common.config import TrainConfig
from impala_common.errors import ConfigError, RankLostError
from impala_common.process.installation import find_version
from impala_server.ranks.group import RankGroup
from impala_server.ranks.place import TORCHRUN, RankPlace

_dist: Any = dist  # Any: torch's stubs leave out stores
_CONNECT_S = 60.0
_SHARED_SECTIONS = ("job", "model", "rollout", "loss", "optimizer", "reuse", "ranks")
_OWN_SETTINGS = frozenset(
    {
        "seed", "num_actors", "tag", "init_model_path", "device", "learner_threads", "env_threads",
        "inference_backend", "eval_episodes", "num_storages", "num_learners", "rank_host",
    }
)  # fmt: skip
"""Settings that need not be equal on all ranks."""


@dataclasses.dataclass(frozen=True)
class RankFacts:
    """What the ranks compare.

    Attributes:
      version: of this software.
      torch_version: of torch, whose rounding differs between versions.
      settings: by name, those that must be equal.
      device: host and device that this rank computes on.
    """

    version: str
    torch_version: str
    settings: dict[str, Any]
    device: str

    @classmethod
    def of(cls, config: TrainConfig, device: torch.device) -> RankFacts:
        """Returns the facts of this process."""
        shared = {
            name: value
            for section in _SHARED_SECTIONS
            for name, value in dataclasses.asdict(getattr(config, section)).items()
            if name not in _OWN_SETTINGS
        }
        settings = json.loads(json.dumps(shared))  # as the others read it: no tuples
        name = f"{socket.gethostname()} {device}"
        return cls(find_version(), torch.__version__, settings, name)


class Joining:
    """The way of one rank into the group; `poll` until it has one."""

    def __init__(self, place: RankPlace, config: TrainConfig, facts: RankFacts) -> None:
        """Opens the store.

        Raises:
          RankLostError: the store cannot be reached.
        """
        self._place = place
        self._settings = config.ranks
        self._facts = facts
        self._deadline_s = time.monotonic() + self._settings.rank_join_s
        self._store = _open_store(place)
        self._missing = list(range(place.num_ranks))
        self._store.set(f"facts/{place.rank}", json.dumps(dataclasses.asdict(facts)))

    def poll(self) -> RankGroup | None:
        """Returns the group once all ranks have come; None before. Does not wait.

        Raises:
          ConfigError: a rank has another version or other settings.
          RankLostError: a rank has not come in time.
        """
        try:
            self._missing = [
                rank for rank in self._missing if not self._store.check([f"facts/{rank}"])
            ]
            if self._missing:
                if time.monotonic() < self._deadline_s:
                    return None
                raise RankLostError(
                    f"learner rank {_list(self._missing)} of {self._place.num_ranks} has not come "
                    f"within {self._settings.rank_join_s:g} s (rank_join_s)"
                )
            others = [
                RankFacts(**json.loads(self._store.get(f"facts/{rank}")))
                for rank in range(self._place.num_ranks)
            ]
        except RuntimeError as error:
            raise RankLostError(f"the learner ranks' meeting point is gone: {error}") from error
        require_equal(others)
        devices = [one.device for one in others]
        has_nccl = all(" cuda" in device for device in devices) and len(set(devices)) == len(
            devices
        )
        return RankGroup(
            self._store,
            self._place.rank,
            self._place.num_ranks,
            self._settings.rank_join_s,
            has_nccl and dist.is_nccl_available(),
        )


def require_equal(facts: list[RankFacts]) -> None:
    """Raises ConfigError, naming the first difference, unless all ranks are of one kind."""
    first = facts[0]
    for rank, one in enumerate(facts):
        for name in ("version", "torch_version"):
            if getattr(one, name) != getattr(first, name):
                raise ConfigError(
                    f"{name} of learner rank {rank}",
                    getattr(one, name),
                    f"{getattr(first, name)}, as rank 0 has it",
                    "ranks that round differently would part without anybody noticing",
                )
        for name in sorted(first.settings.keys() | one.settings.keys()):
            mine, other = first.settings.get(name), one.settings.get(name)
            if mine != other:
                raise ConfigError(
                    f"{name} of learner rank {rank}",
                    other,
                    f"{mine}, as rank 0 has it",
                    "all ranks make the same updates: start them with the same command",
                )


def choose_device(name: str, place: RankPlace) -> str:
    """Returns the device of a rank: with `auto`, each rank of a machine takes the next GPU."""
    if name != "auto" or place.is_alone or not torch.cuda.is_available():
        return name
    return f"cuda:{place.local_rank % torch.cuda.device_count()}"


def _open_store(place: RankPlace) -> Any:
    patience = datetime.timedelta(seconds=_CONNECT_S)
    try:
        if place.rendezvous != TORCHRUN:
            return _dist.FileStore(place.rendezvous, place.num_ranks)
        store, _, _ = next(_dist.rendezvous(TORCHRUN, timeout=patience))
        return _dist.PrefixStore("impala", store)
    except (RuntimeError, OSError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        where = where if place.rendezvous == TORCHRUN else place.rendezvous
        raise RankLostError(
            f"learner rank {place.rank} cannot reach the ranks' meeting point at {where}: {error}"
        ) from error


def _list(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))
