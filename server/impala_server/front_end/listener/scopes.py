"""The token scope that each RPC method needs: one table.

Read by the interceptor of each listener. Every method of `impala_rl.v1` must have a row, or no
server starts: a new method needs a decision about its callers. gRPC's own services are listed by
name. A method without a row is refused.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import impala_rl.v1
from impala_common.rpc.tokens import Scope

PUBLIC = None
"""In place of a scope: open to everyone. Only for tiny, constant-time methods."""

_LEARNER = "/impala_rl.v1.LearnerService/"
_EVALUATION = "/impala_rl.v1.EvaluationService/"
_HEALTH = "/grpc.health.v1.Health/"

METHODS: dict[str, Scope | None] = {
    _LEARNER + "GetConfig": Scope.ACTOR,
    _LEARNER + "Register": Scope.ACTOR,
    _LEARNER + "GetWeights": Scope.ACTOR,
    _LEARNER + "PushUnrolls": Scope.ACTOR,
    _EVALUATION + "WatchCandidates": Scope.EVALUATOR,
    _EVALUATION + "GetCandidateWeights": Scope.EVALUATOR,
    _EVALUATION + "ReportEvaluation": Scope.EVALUATOR,
    "/impala_rl.v1.PolicyService/Play": Scope.ACTOR,
    _HEALTH + "Check": PUBLIC,
    _HEALTH + "Watch": PUBLIC,
    _HEALTH + "List": Scope.ADMIN,
}
"""Scope by full name of the method."""

EVALUATORS_MAY_ALSO = frozenset({_LEARNER + "GetConfig"})
"""Methods of the actors' scope that the evaluators' scope opens as well."""

ADMIN_SERVICES = (
    "impala_rl.v1.AdminService",
    "impala_rl.v1.PolicyAdminService",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
    "grpc.channelz.v1.Channelz",
)
"""Services all of whose methods, future ones included, need the strictest scope."""


def scope_of_method(method: str) -> tuple[bool, Scope | None]:
    """Returns (whether the method is known, its scope) for a full name, /package.Service/Method."""
    if method in METHODS:
        return True, METHODS[method]
    service = method.removeprefix("/").partition("/")[0]
    return service in ADMIN_SERVICES, Scope.ADMIN


def list_methods(package: Any = impala_rl.v1) -> Iterator[str]:  # Any: a module
    """Yields the full name of every method of every service in the package's descriptors."""
    for module_info in pkgutil.iter_modules(package.__path__):
        if not module_info.name.endswith("_pb2"):
            continue
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"


def validate_scopes(methods: Mapping[str, Scope | None] = METHODS) -> None:
    """Raises AssertionError if a method of ours has no scope: a bug, found at start."""
    services = tuple(f"/{service}/" for service in ADMIN_SERVICES)
    missing = [
        name for name in list_methods() if name not in methods and not name.startswith(services)
    ]
    if missing:
        raise AssertionError(f"methods without a scope in {__name__}: {', '.join(missing)}")
