"""Suggests existing environment ids similar to an unknown one.

Searches the ids that Gymnasium has registered, and those of ALE/ and MinAtar/, whose packages
register ids only when imported, or may not be installed.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util

import gymnasium

_MINATAR = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
_ATARI = (
    "Alien", "Amidar", "Assault", "Asterix", "Asteroids", "Atlantis", "BankHeist", "BattleZone",
    "BeamRider", "Berzerk", "Bowling", "Boxing", "Breakout", "Centipede", "ChopperCommand",
    "CrazyClimber", "Defender", "DemonAttack", "DoubleDunk", "Enduro", "FishingDerby", "Freeway",
    "Frostbite", "Gopher", "Gravitar", "Hero", "IceHockey", "Jamesbond", "Kangaroo", "Krull",
    "KungFuMaster", "MontezumaRevenge", "MsPacman", "NameThisGame", "Phoenix", "Pitfall", "Pong",
    "PrivateEye", "Qbert", "Riverraid", "RoadRunner", "Robotank", "Seaquest", "Skiing", "Solaris",
    "SpaceInvaders", "StarGunner", "Surround", "Tennis", "TimePilot", "Tutankham", "UpNDown",
    "Venture", "VideoPinball", "WizardOfWor", "YarsRevenge", "Zaxxon",
)  # fmt: skip


def suggest_ids(name: str, count: int = 3) -> list[str]:
    """Returns up to `count` ids similar to `name`, the most similar first.

    Ids that differ only in namespace and version come before ids of similar spelling.
    """
    known = _known_ids()
    base = _base_of(name)
    same = [known_id for known_id in known if _base_of(known_id) == base]
    same.sort(key=lambda known_id: (-_version_of(known_id), known_id))
    same.sort(key=lambda known_id: known_id.rpartition("-v")[2] != name.rpartition("-v")[2])
    alike = difflib.get_close_matches(name, known, n=count, cutoff=0.6)
    return list(dict.fromkeys([*same, *alike]))[:count]


def _known_ids() -> list[str]:
    if importlib.util.find_spec("ale_py") is not None:
        importlib.import_module("ale_py")  # registers its ids
        atari = []
    else:
        atari = [f"ALE/{game}-v5" for game in _ATARI]
    minatar = [f"MinAtar/{game}-v1" for game in _MINATAR]
    return [*(name for name in gymnasium.registry if _is_current(name)), *atari, *minatar]


def _is_current(name: str) -> bool:
    """Returns whether to recommend an id; ids of old Atari versions are not recommended."""
    spec = gymnasium.registry[name]
    return spec.entry_point != "ale_py.env:AtariEnv" or name.startswith("ALE/")


def _base_of(name: str) -> str:
    """Returns an id without namespace and version, in small letters."""
    return name.rpartition("/")[2].rpartition("-v")[0].lower() or name.rpartition("/")[2].lower()


def _version_of(name: str) -> int:
    version = name.rpartition("-v")[2]
    return int(version) if version.isdecimal() else -1
