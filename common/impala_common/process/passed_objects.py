"""Passes Python objects (environments, models) to child processes through inherited memory.

A user of the class IMPALA may pass a function or a class without an importable name. The user's
process writes such objects into anonymous memory and starts learner and actors with the descriptor
(`--objects-fd`); they make the objects from it. The objects get no name and go to no other machine,
and only the parent's memory is read: ADR 0019. Only this module may use cloudpickle.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Literal

import cloudpickle

from impala_common.config.checks import require
from impala_common.errors import FOREIGN_ERRORS, ConfigError

Kind = Literal["environment", "model", "registration"]
"""A maker of an environment, a maker of a network, or a Gymnasium id's EnvSpec."""

Objects = Mapping[tuple[Kind, str], bytes]
"""Packed objects by kind and name."""

OBJECTS_OPTION = "--objects-fd"
"""Internal option that names the descriptor."""

_LENGTH = struct.Struct("<Q")


def has_object_memory() -> bool:
    """Returns whether this system has memory for objects: Linux has."""
    return hasattr(os, "memfd_create")


class ObjectMemory:
    """Anonymous memory with packed objects; children inherit its descriptor.

    Attributes:
      fd: the descriptor, until closed.
      names: names of the objects; none if it passes the module search path alone.
    """

    def __init__(self, objects: Objects) -> None:
        """Writes `objects` and this process's module search path, and seals the memory.

        Raises:
          ConfigError: this system has no such memory. A file would put pickle on a disk.
        """
        require(
            "environment or network",
            ", ".join(name for _kind, name in objects),
            has_object_memory(),
            "named by its module (module:MyEnv-v0) on this system",
            "Python objects reach other processes through anonymous memory, which Linux has",
        )
        self.names = tuple(name for _kind, name in objects)
        index = [[kind, name, len(data)] for (kind, name), data in objects.items()]
        search_path = [os.path.abspath(entry) for entry in sys.path]
        header = json.dumps({"search_path": search_path, "objects": index}).encode()
        data = b"".join([_LENGTH.pack(len(header)), header, *objects.values()])
        self.fd = os.memfd_create("impala-objects", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(self.fd, "wb", closefd=False) as writer:
            writer.write(data)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    @property
    def option(self) -> tuple[str, ...]:
        """Command-line arguments for a child, which must also inherit `fd`."""
        return (OBJECTS_OPTION, str(self.fd))

    def close(self) -> None:
        """Closes this process's descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def split_objects_option(argv: Sequence[str]) -> tuple[int | None, list[str]]:
    """Returns the descriptor in a command line, if there is one, and the other arguments."""
    rest = list(argv)
    if OBJECTS_OPTION not in rest[:-1]:
        return None, rest
    position = rest.index(OBJECTS_OPTION)
    value = rest[position + 1]
    if not value.isdecimal():
        raise ConfigError(OBJECTS_OPTION, value, "a descriptor's number")
    del rest[position : position + 2]
    return int(value), rest


def read_objects(fd: int) -> dict[tuple[Kind, str], bytes]:
    """Returns the parent's objects, and adds the parent's module search path.

    The parent's entries come after those of this process: a file of the parent's folder that is
    named like a standard module (random.py) must not take its place here.

    Raises:
      ConfigError: `fd` is not the memory of an ObjectMemory.
    """
    try:
        # pread: all children share one file offset.
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        header = json.loads(data[_LENGTH.size : start])
        index = [(kind, name, int(num_bytes)) for kind, name, num_bytes in header["objects"]]
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ConfigError(
            OBJECTS_OPTION, fd, "memory from the process that started this one", str(error)
        ) from error
    sys.path += [entry for entry in header["search_path"] if entry not in sys.path]
    objects = {}
    for kind, name, num_bytes in index:
        objects[kind, name] = data[start : start + num_bytes]
        start += num_bytes
    return objects


def pack_object(name: str, value: object, way_round: str) -> bytes:
    """Returns `value` as bytes, from which a child process can make it.

    Includes the code of modules that a child cannot import (a notebook, a script, a test).

    Args:
      name: of the argument, for the message.
      value: any object.
      way_round: workaround for the message, if the object cannot be copied.

    Raises:
      ConfigError: it cannot be copied.
    """
    try:
        with _modules_by_value():
            data: bytes = cloudpickle.dumps(value)
    except FOREIGN_ERRORS as error:  # __reduce__ of a user's object may raise any error
        raise ConfigError(
            name,
            value,
            "an object that can be copied to the processes of actors and learner",
            f"{type(error).__name__}: {error}. {way_round}",
        ) from error
    return data


def unpack_object(name: str, data: bytes) -> Any:  # Any: the user's object
    """Makes an object from the bytes of `pack_object`; only for bytes of the parent's memory.

    Raises:
      ConfigError: it cannot be made in this process.
    """
    try:
        return cloudpickle.loads(data)
    except FOREIGN_ERRORS as error:  # importing or making a user's object may raise any error
        raise ConfigError(
            name,
            "",
            "an object that can be made again in another process",
            f"{type(error).__name__}: {error}",
        ) from error


@contextlib.contextmanager
def _modules_by_value() -> Iterator[None]:
    """Makes cloudpickle include the code of modules that another process cannot import."""
    modules = {
        module.__name__: module for module in filter(_is_out_of_reach, [*sys.modules.values()])
    }
    known = cloudpickle.list_registry_pickle_by_value()
    # cloudpickle always includes the code of __main__.
    added = [module for name, module in modules.items() if name not in {*known, "__main__"}]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def _is_out_of_reach(module: object) -> bool:
    """Returns whether a user's module cannot be found on this process's sys.path."""
    file = getattr(module, "__file__", None)
    if not isinstance(module, ModuleType) or not file or module.__name__ not in sys.modules:
        return False
    if os.path.abspath(file).startswith(_INSTALLED):
        return False
    return not _can_find(module.__name__, os.path.abspath(file))


def _can_find(name: str, file: str) -> bool:
    path: list[str] | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = PathFinder.find_spec(".".join(parts[:depth]), path)
        except (ImportError, ValueError, AttributeError):
            return False
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or ())
    return bool(spec and spec.origin and os.path.abspath(spec.origin) == file)


_INSTALLED = tuple(
    os.path.abspath(sysconfig.get_path(name)) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
