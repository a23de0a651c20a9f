"""Imports user-supplied modules named on the command line or in a run's folder.

Searched where Python searches, then in the working directory (unless Python was told not
to, by -P or PYTHONSAFEPATH), so that the installed commands find what `python -m` finds. The
processes that commands start (`python_command`) do not have the working directory in their path
at all: a random.py there must not stand in for Python's.
Never called with a name that came over the wire.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_SEARCHES_HERE = "impala_own_modules"
"""An option of python -X: own modules may lie in the working directory in spite of -P."""
_is_own_process = _SEARCHES_HERE in sys._xoptions  # or a command: see search_working_directory


def import_own_module(name: str) -> ModuleType:
    """Returns the module; errors of the import, SystemExit included, pass through."""
    with _working_directory_on_path():
        return importlib.import_module(name)


def python_command(module: str) -> list[str]:
    """Returns the command that runs a module of this project in a process of its own.

    Own modules are found there where they are found here.
    """
    option = ["-X", _SEARCHES_HERE] if _searches_working_directory() else []
    return [sys.executable, "-P", *option, "-m", module]


def hint_at_import_error(name: str, error: BaseException) -> str:
    """Returns advice if the module `name` itself was not found, else ""."""
    if isinstance(error, ModuleNotFoundError) and name.startswith(error.name or "?"):
        return f": {way_to_find()}"
    return ""


def is_own_module_missing(name: str) -> bool:
    """Returns whether a module or package is missing, without importing it.

    Of "package.module" only the package is checked: finding the module would run the package's
    code.
    """
    with _working_directory_on_path():
        try:
            return importlib.util.find_spec(name.partition(".")[0]) is None
        except (ImportError, ValueError):  # the import itself reports the error
            return False


def find_class_problem(module: str, name: str) -> str:
    """Returns why "module:name" cannot be used, judging by the source; "" if it may be usable.

    Imports nothing. A name counts as defined if any statement at the top level of the module may
    define it: a class, a function, an assignment, an import, or code that is not analysed.
    """
    if is_own_module_missing(module):
        return f"no {module}: {way_to_find()}"
    if module in sys.modules and "." not in name and hasattr(sys.modules[module], name):
        is_class = isinstance(getattr(sys.modules[module], name), type)
        return "" if is_class else f"{module}.{name} is no class"
    path = _find_source(module)
    if path is None:
        return ""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""  # the import itself reports the error
    names = _names_at_top(tree)
    first = name.partition(".")[0]
    if names is None:
        return ""
    if first in names:
        return "" if "." in name else _find_kind_problem(tree, path.name, name)
    classes = ", ".join(sorted(name for name in names if name[:1].isupper()))
    return f"{path.name} has no {first}" + (f"; there are: {classes}" if classes else "")


def _find_kind_problem(tree: ast.Module, file: str, name: str) -> str:
    """Returns why the last definition of `name` is no network; "" if it may be one."""
    for node in reversed(tree.body):
        match node:
            case ast.ClassDef(name=found, bases=bases, keywords=keywords) if found == name:
                is_plain = not (bases or keywords or node.decorator_list)
                return f"{name} in {file} derives from no class" if is_plain else ""
            case ast.FunctionDef(name=found) if found == name:
                return f"{name} in {file} is a function"
            case ast.Import(names=aliases) if name in {alias.asname for alias in aliases}:
                return f"{name} in {file} is a module"
            case ast.Assign() | ast.AnnAssign() | ast.ImportFrom():
                if name in (_names_at_top(ast.Module([node], [])) or ()):
                    return ""
    return ""


def _find_source(module: str) -> Path | None:
    """Returns the file of a module's source; None if only an import could tell."""
    package, *rest = module.split(".")
    with _working_directory_on_path():
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            return None
    if spec is None or package in sys.modules:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _names_at_top(tree: ast.Module) -> set[str] | None:
    """Returns the names that a module defines; None if they cannot all be known."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
                if name == "__getattr__":
                    return None
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                if any(alias.name == "*" for alias in aliases):
                    return None
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
            case ast.Assign() | ast.AnnAssign():
                names |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                return None  # a condition, a loop, a call: may define any name
    return names


def way_to_find() -> str:
    """Returns advice for a module that was not found."""
    try:
        here = f" (working in {os.getcwd()})"
    except OSError:  # an environment may have removed the folder it went to
        here = ""
    return f"install it, or name its folder in PYTHONPATH{here}"


def _searches_working_directory() -> bool:
    return not sys.flags.safe_path or _SEARCHES_HERE in sys._xoptions


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """Searches the working directory last; for good in processes of this project.

    There modules may import their neighbours later, when an environment is made or reset. A path of
    the user's own process is left as it was.
    """
    added = search_working_directory()
    try:
        yield
    finally:
        if added and not _is_own_process:
            sys.path.remove(added)


def search_working_directory(*, for_good: bool = False) -> str:
    """Puts the working directory last on the path, where modules may lie in it.

    Args:
      for_good: this process is a command: what is imported later is found there, too.

    Returns:
      The folder that was added; "" if none was.
    """
    global _is_own_process
    _is_own_process = _is_own_process or for_good
    try:
        here = os.getcwd()
    except OSError:  # an environment may have removed the folder it went to
        return ""
    if not _searches_working_directory() or here in sys.path or "" in sys.path:
        return ""
    sys.path.append(here)  # last: its modules must not replace installed packages
    return here
