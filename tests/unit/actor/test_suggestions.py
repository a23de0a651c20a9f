"""Suggested ids for an unknown one."""

from __future__ import annotations

import pytest

from impala_actor.environments.suggestions import suggest_ids


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Pong-v5", "ALE/Pong-v5"),
        ("pong-v5", "ALE/Pong-v5"),
        ("Breakout-v1", "MinAtar/Breakout-v1"),
        ("Breakout-v5", "ALE/Breakout-v5"),
        ("MsPacman-v5", "ALE/MsPacman-v5"),
        ("CartPole-v7", "CartPole-v1"),
        ("Cartpole-v1", "CartPole-v1"),
        ("CartPole", "CartPole-v1"),
    ],
)
@pytest.mark.parametrize("has_ale", [True, False])
def test_id_without_its_namespace_or_with_another_version_is_suggested_first(
    name: str, first: str, has_ale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: Pong-v5: only what Gymnasium had registered so far was looked at."""
    if not has_ale:
        monkeypatch.setattr("importlib.util.find_spec", lambda unused_name: None)

    assert suggest_ids(name)[0] == first
