"""warn_of_class_changes: what a caller changed on the class or the module of an environment.

Actors import the module of a class anew, so that `MyEnv.goal = .05` or `my_module.GOAL = .05` does
not reach them. The values that stand in the source are compared with those that hold now, and
differences become a warning: it cannot be known whether they are meant for actors. Compared are
constants that the source writes as literals and assigns once, and functions without decorators.
A module that is run as a script is not imported by actors: its classes are sent as they are.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium

_SENT_AS_THEY_ARE = frozenset({"__main__", "__mp_main__"})
_NOT_LOOKED_AT = ("builtins", "abc", "typing", "gymnasium.core")
_MAX_SOURCE_BYTES = 1 << 20


def warn_of_class_changes(argument: str, env: gymnasium.Env[Any, Any]) -> None:
    """Warns where classes of `env`, or their modules, are not as their source says."""
    changes = list(find_class_changes(env))
    if changes:
        warnings.warn(
            f"{argument}: {', '.join(changes)} was changed after its module was imported. Actors "
            "import the module anew and have the value of its source: set it on the object, or "
            "pass a factory that sets it",
            stacklevel=2,
        )


def find_class_changes(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """Yields names of class attributes, methods and module globals that were changed."""
    modules: dict[str, ast.Module] = {}
    for kind in _classes_of(env):
        name = kind.__module__
        if name in _SENT_AS_THEY_ARE or name in _NOT_LOOKED_AT or name not in sys.modules:
            continue
        is_new = name not in modules
        if is_new:
            modules[name] = _parse(sys.modules[name])
        tree = modules[name]
        stored = _stored_names(tree)
        if is_new:
            for changed in _find_changed(tree.body, vars(sys.modules[name]), stored):
                yield f"{name}.{changed}"
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == kind.__qualname__:
                for changed in _find_changed(node.body, dict(vars(kind)), stored):
                    yield f"{kind.__qualname__}.{changed}"


def _classes_of(env: gymnasium.Env[Any, Any]) -> Iterator[type]:
    """Yields the classes of an environment and of the wrappers around it, each once."""
    seen: set[type] = set()
    layer = env
    while True:
        for kind in type(layer).__mro__:
            if kind not in seen:
                seen.add(kind)
                yield kind
        if not isinstance(layer, gymnasium.Wrapper):
            return
        layer = layer.env


def _parse(module: types.ModuleType) -> ast.Module:
    """Returns the source of a module as a tree; an empty one where there is none to read."""
    try:
        source = inspect.getsource(module)
        return ast.parse(source if len(source) < _MAX_SOURCE_BYTES else "")
    except (OSError, TypeError, SyntaxError, ValueError):
        return ast.Module([], [])


def _stored_names(tree: ast.Module) -> set[str]:
    """Returns names that the module's own functions assign: on a class, or as a global."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found |= set(node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner != "self":
                found.add(node.attr)
    return found


def _find_changed(
    body: list[ast.stmt], now: dict[str, Any], stored: set[str]
) -> Iterator[str]:  # Any: whatever a class or module holds
    written: dict[str, list[ast.expr | None]] = {}
    functions: dict[str, ast.FunctionDef] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for bound in (it for it in ast.walk(target) if isinstance(it, ast.Name)):
                    is_plain = target is bound
                    written.setdefault(bound.id, []).append(node.value if is_plain else None)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            written.setdefault(node.target.id, []).append(node.value)
        elif isinstance(node, ast.FunctionDef) and not node.decorator_list:
            functions[node.name] = node
    counted = _count_bindings(body)
    for name, values in written.items():
        if name in stored or counted[name] != 1 or values[0] is None or name not in now:
            continue
        try:
            literal = ast.literal_eval(values[0])
            hash(literal)  # lists and the like are filled by whoever uses them
        except (ValueError, TypeError):
            continue
        if type(now[name]) is not type(literal) or repr(now[name]) != repr(literal):
            yield name
    for name, function in functions.items():
        held = now.get(name)
        if name in stored or counted[name] != 1 or not isinstance(held, types.FunctionType):
            continue
        if (held.__code__.co_name, held.__code__.co_firstlineno) != (name, function.lineno):
            yield name


def _count_bindings(body: list[ast.stmt]) -> dict[str, int]:
    """Returns how often each name is assigned or defined in a body, branches included."""
    counted: dict[str, int] = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [statement.name]
        else:
            names = [
                node.id if isinstance(node, ast.Name) else node.name
                for node in ast.walk(statement)
                if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
                or isinstance(node, ast.FunctionDef | ast.ClassDef)
            ]
        for name in names:
            counted[name] = counted.get(name, 0) + 1
    return counted


__all__ = ["find_class_changes", "warn_of_class_changes"]
