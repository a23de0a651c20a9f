"""Passes Python objects (environments, models) to child processes through inherited memory.

A user of the class IMPALA may pass a function or a class that has no importable
name. The process of that user writes such objects into anonymous memory and
starts learner and actors with the descriptor (`--objects-fd`); they make the
objects from it. Nothing of it ever goes to a file or over the wire, and nothing
that came over the wire or from a file is read here: ADR 0019. The one place
that may use cloudpickle.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Literal

import cloudpickle

from impala_common.errors import ConfigError

Kind = Literal["environment", "model", "registration"]
"""A maker of an environment, a maker of a network, or a Gymnasium id's EnvSpec."""

Objects = Mapping[tuple[Kind, str], bytes]
"""Packed objects by kind and name."""

OBJECTS_OPTION = "--objects-fd"
"""The option of this project's own processes that names the descriptor; not for people."""

_LENGTH = struct.Struct("<Q")


class ObjectMemory:
    """Anonymous memory with packed objects; children inherit its descriptor.

    Attributes:
      fd: the descriptor, until closed.
    """

    def __init__(self, objects: Objects) -> None:
        """Writes `objects` and this process's module search path; sealed where Linux can."""
        index = [[kind, name, len(data)] for (kind, name), data in objects.items()]
        search_path = [os.path.abspath(entry) for entry in sys.path]
        header = json.dumps({"search_path": search_path, "objects": index}).encode()
        data = b"".join([_LENGTH.pack(len(header)), header, *objects.values()])
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("impala-objects", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:  # not Linux: a file without a name
            with tempfile.TemporaryFile(prefix="impala-objects") as file:
                self.fd = os.dup(file.fileno())
        with open(self.fd, "wb", closefd=False) as writer:
            writer.write(data)
        if hasattr(os, "memfd_create"):
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    @property
    def option(self) -> tuple[str, ...]:
        """The arguments by which a child learns of it; `fd` must be passed on too."""
        return (OBJECTS_OPTION, str(self.fd))

    def close(self) -> None:
        """Gives up this process's hold on the memory."""
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
    """Returns what the parent wrote, and searches modules where the parent does.

    Raises:
      ConfigError: `fd` is not memory of an ObjectMemory.
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
    known = set(header["search_path"])
    sys.path[:] = [*header["search_path"], *(entry for entry in sys.path if entry not in known)]
    objects = {}
    for kind, name, num_bytes in index:
        objects[kind, name] = data[start : start + num_bytes]
        start += num_bytes
    return objects


def pack_object(name: str, value: object, way_round: str) -> bytes:
    """Returns `value` as bytes that a child process can make it from.

    Code of modules that a child could not import (a notebook, a script, a test) goes along.

    Args:
      name: of the argument it came by, for people.
      value: any object.
      way_round: what to do where that is impossible.

    Raises:
      ConfigError: it cannot be copied.
    """
    try:
        with _modules_by_value():
            data: bytes = cloudpickle.dumps(value)
    except Exception as error:  # whatever __reduce__ of a user's object raises
        raise ConfigError(
            name,
            value,
            "an object that can be copied to the processes of actors and learner",
            f"{type(error).__name__}: {error}. {way_round}",
        ) from error
    return data


def unpack_object(name: str, data: bytes) -> Any:  # Any: whatever the user passed
    """Makes an object from what `pack_object` returned; only for bytes of the parent's memory.

    Raises:
      ConfigError: it cannot be made in this process.
    """
    try:
        return cloudpickle.loads(data)
    except Exception as error:  # whatever importing or making a user's object raises
        raise ConfigError(
            name,
            "",
            "an object that can be made again in another process",
            f"{type(error).__name__}: {error}",
        ) from error


@contextlib.contextmanager
def _modules_by_value() -> Iterator[None]:
    """Lets cloudpickle take along the code of modules that another process cannot import."""
    modules = {
        module.__name__: module for module in filter(_is_out_of_reach, [*sys.modules.values()])
    }
    known = cloudpickle.list_registry_pickle_by_value()
    # Of __main__ cloudpickle takes along the code anyway.
    added = [module for name, module in modules.items() if name not in {*known, "__main__"}]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def _is_out_of_reach(module: object) -> bool:
    """Whether a process with this one's sys.path would not find this user's module."""
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
