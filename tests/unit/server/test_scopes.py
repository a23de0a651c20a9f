"""The table of authorisation is complete, and methods outside it are refused."""

from __future__ import annotations

import pytest

from impala_common.rpc.tokens import Scope
from impala_server.front_end.listener.scopes import (
    METHODS,
    list_methods,
    scope_of_method,
    validate_scopes,
)


def test_every_method_of_ours_has_a_scope() -> None:
    validate_scopes()
    found = {name: scope_of_method(name) for name in list_methods()}

    assert len(found) >= 4
    assert all(is_known and scope is not None for is_known, scope in found.values())
    for name, (_, scope) in found.items():
        assert (scope is Scope.ADMIN) == ("AdminService" in name)
        assert (scope is Scope.EVALUATOR) == ("EvaluationService" in name)


@pytest.mark.parametrize("missing", [name for name in METHODS if "impala_rl" in name])
def test_method_without_a_scope_stops_the_start(missing: str) -> None:
    table = {name: scope for name, scope in METHODS.items() if name != missing}

    with pytest.raises(AssertionError, match=missing.rpartition("/")[2]):
        validate_scopes(table)


@pytest.mark.parametrize(
    "method",
    [
        "",
        "/",
        "/impala_rl.v1.LearnerService/",
        "/impala_rl.v1.LearnerService/Getconfig",
        "/impala_rl.v1.LearnerService/GetConfig/",
        "/impala_rl.v1.LearnerServiceX/GetConfig",
        "/grpc.health.v1.Health/Check2",
        "impala_rl.v1.AdminServiceX/Pause",
    ],
)
def test_unknown_method_has_no_scope(method: str) -> None:
    assert not scope_of_method(method)[0]


def test_only_health_is_public() -> None:
    public = {name for name, scope in METHODS.items() if scope is None}

    assert public == {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}
