"""Makes the Python code of protos/, or checks that the committed code is what it would be.

Called by `make protos` and `make check-protos`. Only files with a service get a
*_pb2_grpc.py: for the others grpc_tools writes one that holds nothing. The
compiler is the one of the lowest grpcio promised in pyproject.toml, as
generated code refuses older runtimes.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def generate(out: Path) -> None:
    """Writes the code of every .proto file below `out`; raises RuntimeError on failure."""
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    with_service = [
        source
        for source in sources
        if re.search(r"^service\s", (PROTOS / source).read_text("utf-8"), re.MULTILINE)
    ]
    include = [f"-I{PROTOS}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    runs = [
        [f"--python_out={out}", f"--pyi_out={out}", *sources],
        [f"--grpc_python_out={out}", *with_service],
    ]
    for arguments in runs:
        status = protoc.main(["protoc", *include, *arguments])
        if status != 0:
            raise RuntimeError(f"protoc ended with {status}")


def read_generated(root: Path) -> dict[str, str]:
    """Returns the text of every generated file below `root`, by relative path."""
    return {
        path.relative_to(root).as_posix(): path.read_text("utf-8")
        for path in sorted(root.rglob("*"))
        if path.name.endswith(SUFFIXES)
    }


def main() -> int:
    """Generates in place, or with --check into a temporary folder and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    is_check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        wanted = read_generated(Path(folder))
    present = read_generated(PROTOS)
    stale = [name for name in sorted({*wanted, *present}) if wanted.get(name) != present.get(name)]
    for name in stale:
        if is_check:
            before = present.get(name, "").splitlines(keepends=True)
            after = wanted.get(name, "").splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(before, after, name, f"{name} (generated)"))
        elif name in wanted:
            (PROTOS / name).write_text(wanted[name], "utf-8")
        else:
            (PROTOS / name).unlink()
    if is_check and stale:
        print(f"out of date: {', '.join(stale)}; run `make protos` and commit the result")
        return 1
    print(f"{len(wanted)} generated files, {len(stale)} {'differ' if is_check else 'changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
