"""One target under atheris (libFuzzer), which keeps inputs that reach new code.

Run as a process of its own by `python tests/fuzz`: libFuzzer ends the process when it is
done. Arguments: the target's name, then libFuzzer's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["impala_common"]):
    from targets import TARGETS


def main() -> None:
    """Fuzzes until libFuzzer has had enough; a finding ends the process with its code."""
    name, *arguments = sys.argv[1:]
    target = TARGETS[name]

    def test_one_input(data: bytes) -> None:
        target.run(data)

    atheris.Setup([sys.argv[0], *arguments], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
