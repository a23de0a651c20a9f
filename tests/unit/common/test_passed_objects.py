"""Python objects through inherited memory: copies in children, and early refusals."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from impala_actor.environments.factory import make_environment, register_environment
from impala_common.errors import ConfigError, UnknownEnvironmentError
from impala_common.process.passed_objects import (
    ObjectMemory,
    pack_object,
    read_objects,
    split_objects_option,
    unpack_object,
)

CHILD = """
import sys
from impala_common.process.passed_objects import read_objects, unpack_object
objects = read_objects(int(sys.argv[1]))
print(unpack_object("it", objects["environment", "object:it"])())
"""


def run_child(objects: ObjectMemory, cwd: Path) -> str:
    """Returns what a child process makes of the object called object:it."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(objects.fd)],
        pass_fds=(objects.fd,),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("is_on_path", [True, False])
def test_object_of_a_module_arrives_whether_or_not_a_child_can_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_on_path: bool
) -> None:
    """Seen failing for False without `_modules_by_value`, and for True without the search path."""
    (tmp_path / "lab").mkdir()
    source = tmp_path / "lab" / "my_lab_module.py"
    source.write_text("class Answer:\n    def __call__(self):\n        return 'from the lab'\n")
    spec = importlib.util.spec_from_file_location("my_lab_module", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_lab_module", module)
    spec.loader.exec_module(module)
    if is_on_path:
        monkeypatch.syspath_prepend(str(source.parent))

    data = pack_object("env", module.Answer(), "")
    if not is_on_path:
        source.unlink()
    objects = ObjectMemory({("environment", "object:it"): data})
    try:
        printed = run_child(objects, tmp_path)
    finally:
        objects.close()

    assert printed == "from the lab"


def test_files_of_the_parents_folder_do_not_take_the_place_of_standard_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: the parent's search path came first, and its random.py with it."""
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random.py')\n")
    (tmp_path / "only_there.py").write_text("WORD = 'found'\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def look() -> str:
        import random  # the child has not imported it yet

        import only_there  # type: ignore[import-not-found]

        return f"{only_there.WORD} {random.Random(1).random() < 1}"

    objects = ObjectMemory({("environment", "object:it"): pack_object("env", look, "")})
    try:
        printed = run_child(objects, tmp_path.parent)
    finally:
        objects.close()

    assert printed == "found True"


def test_memory_read_by_two_children_gives_both_everything(tmp_path: Path) -> None:
    """Seen failing with os.read: the second one begins where the first one stopped."""
    word = "captured"
    objects = ObjectMemory({("environment", "object:it"): pack_object("env", lambda: word, "")})
    try:
        printed = [run_child(objects, tmp_path), run_child(objects, tmp_path)]
    finally:
        objects.close()

    assert printed == [word, word]


def test_objects_are_refused_where_they_would_lie_on_a_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: without memfd they went into a temporary file."""
    monkeypatch.delattr(os, "memfd_create")

    with pytest.raises(ConfigError, match="'mine' but must be named by its module"):
        ObjectMemory({("environment", "mine"): b"1"})


def test_memory_once_written_cannot_be_changed() -> None:
    objects = ObjectMemory({})
    try:
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(objects.fd, b"x", 0)
    finally:
        objects.close()


def test_pack_object_that_cannot_be_copied_says_why_and_the_way_round() -> None:
    lock = threading.Lock()

    with pytest.raises(ConfigError, match=r"(?s)env is .*pickle '_thread.lock'.*pass a factory"):
        pack_object("env", lambda: lock, "pass a factory")


def test_unpack_object_that_cannot_be_made_says_which() -> None:
    with pytest.raises(ConfigError, match=r"object:mine .*made again in another process"):
        unpack_object("object:mine", b"\x80\x04 no pickle")


class Exiting:
    """An object whose code calls sys.exit() when it is copied, or when it is made again."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        if self.when == "copied":
            sys.exit("no display")
        return sys.exit, ("no display",)


def test_object_whose_code_calls_sys_exit_is_refused_by_name() -> None:
    """Seen to fail: SystemExit ended the process that copied it, or was to make it."""
    with pytest.raises(ConfigError, match=r"env is .*SystemExit: no display"):
        pack_object("env", Exiting("copied"), "pass a factory")
    with pytest.raises(ConfigError, match=r"object:mine .*SystemExit: no display"):
        unpack_object("object:mine", pack_object("env", Exiting("made"), ""))


def test_read_objects_of_other_memory_is_refused() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(ConfigError, match="--objects-fd"):
            read_objects(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_split_objects_option_takes_it_out_of_the_command_line() -> None:
    assert split_objects_option(["--env", "X", "--objects-fd", "7"]) == (7, ["--env", "X"])
    assert split_objects_option(["--env", "X"]) == (None, ["--env", "X"])


def test_make_environment_of_an_object_nobody_registered_says_the_way_round() -> None:
    with pytest.raises(UnknownEnvironmentError, match=r"IMPALA\(env, ...\)\.load\(RUN\)"):
        make_environment("object:of-another-process", 1)


def test_make_environment_of_a_maker_that_fails_names_its_error() -> None:
    def maker() -> object:
        raise RuntimeError("no licence")

    register_environment("object:failing", maker)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="RuntimeError: no licence"):
        make_environment("object:failing", 2)


def test_make_environment_of_a_maker_of_something_else_names_it() -> None:
    register_environment("object:dict", dict)  # type: ignore[arg-type]

    with pytest.raises(UnknownEnvironmentError, match=r"no environment but builtins\.dict"):
        make_environment("object:dict", 1)
